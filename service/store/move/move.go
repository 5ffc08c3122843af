// Package move copies a store to another one of the same or another kind: users, the log with its positions, the stored results
// of requests, the epoch and the clock. For clients the target continues the source.
//
//   - Rows are copied in chunks of bounded size. A chunk and the cursor behind it are one transaction of the target, so a
//     move that was interrupted at any point continues there.
//   - The source must not be in use, and cannot be opened as a store during a move. A target must be empty. While it is
//     incomplete it cannot be opened as a store, and only the unchanged source continues it.
//   - At the end all rows are read again from both stores and compared, and the target is checked.
//   - The source keeps its data, but gets a new epoch when it is opened again: with the same epoch the two stores
//     would have different rows at the same positions.
package move

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/yourorg/userservice/service/clock"
)

var (
	// ErrIncomplete is the error of a store that is the target of an incomplete move.
	ErrIncomplete = errors.New("a move to this store is incomplete: repeat the userd migrate command, or delete the store")
	// ErrOtherSource is the error of a target that cannot be continued.
	ErrOtherSource = errors.New("the incomplete move to this store is of another source, or the source or the program has changed since: " +
		"delete the target and move again")
)

// Reader reads the tables of a store that no other process uses.
type Reader interface {
	// Read returns the next rows of a table after a cursor, in the order of the columns key: up to limit rows, fewer if
	// they are large. A nil cursor is before the first row.
	Read(ctx context.Context, t *Table, key []string, after Row, limit int) (Chunk, error)
	// Count returns the number of rows.
	Count(ctx context.Context, t *Table) (int64, error)
	// Close ends the use of the store.
	Close() error
}

// Source is a store to be moved.
type Source interface {
	Reader
	// Fingerprint identifies the store and its contents. It changes with each write, but not by Retire.
	Fingerprint() string
	// Order returns the unique columns in whose order the rows of a table are to be written.
	Order(t *Table) []string
	Meta(ctx context.Context) (Meta, error)
	// Retire makes the store get a new epoch when it is opened.
	Retire(ctx context.Context) error
}

// Meta is the state of a store beside its tables.
type Meta struct {
	Epoch    string // empty: the store gets a new one when it is opened
	Position int64  // of the last row of the log
	Time     int64  // of the last row of the log, in microseconds
	First    int64  // position of the oldest retained row
	Clock    clock.Checkpoint
}

// Target is a store that is filled.
type Target interface {
	Reader
	// Begin marks an empty store as incomplete. Of an incomplete store it returns what was stored with Write and Install. It
	// fails for other stores, and for one of a source with another fingerprint.
	Begin(ctx context.Context, fingerprint string) (state map[string][]byte, err error)
	// Write adds rows, and stores a cursor by the name of the table, in one transaction.
	Write(ctx context.Context, t *Table, rows []Row, cursor []byte) error
	// BuildIndex completes the index of filters.
	BuildIndex(ctx context.Context, progress func(done, total int)) error
	// Install stores the state beside the tables, and a value by the name Installed.
	Install(ctx context.Context, meta Meta) error
	// Check returns the problems that it finds, as the check of a store does.
	Check(ctx context.Context, progress func(done, total int)) (findings []string, err error)
	// Complete ends the move: the store can be opened.
	Complete(ctx context.Context) error
}

// Names of the state of a target, besides those of tables.
const (
	SourceState = "source"    // the fingerprint of the source
	Installed   = "installed" // Install was called
)

// Options configures Run.
type Options struct {
	// Progress is called with what a stage has done.
	Progress func(stage string, done, total int)
	// ChunkRows is the largest number of rows of a chunk; default: 2000.
	ChunkRows int
}

// Run moves a store, or continues a move. It returns the number of rows by the name of the table.
func Run(ctx context.Context, from Source, to Target, opts Options) (rows map[string]int64, err error) {
	if opts.Progress == nil {
		opts.Progress = func(string, int, int) {}
	}
	if opts.ChunkRows == 0 {
		opts.ChunkRows = defaultChunkRows
	}
	m := &mover{Source: from, target: to, Options: opts, rows: make(map[string]int64)}
	if m.state, err = to.Begin(ctx, from.Fingerprint()); err != nil {
		return nil, fmt.Errorf("target: %w", err)
	}
	for _, t := range Tables() {
		if m.rows[t.Name], err = from.Count(ctx, t); err != nil {
			return nil, fmt.Errorf("source: %w", err)
		}
		m.total += int(m.rows[t.Name])
	}
	if _, installed := m.state[Installed]; !installed {
		if err := m.fill(ctx); err != nil {
			return nil, err
		}
	}
	if err := m.check(ctx); err != nil {
		return nil, fmt.Errorf("check of the target: %w", err)
	}
	if err := from.Retire(ctx); err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	if err := to.Complete(ctx); err != nil {
		return nil, fmt.Errorf("target: %w", err)
	}
	return m.rows, nil
}

// mover is the state of a move.
type mover struct {
	Source

	Options

	target Target
	state  map[string][]byte
	rows   map[string]int64
	total  int // rows
	done   int // rows of the stage
}

// fill copies all data and compares it.
func (m *mover) fill(ctx context.Context) error {
	for _, t := range Tables() {
		if err := m.copy(ctx, t); err != nil {
			return fmt.Errorf("copy %s: %w", t.Name, err)
		}
	}
	if err := m.target.BuildIndex(ctx, func(done, total int) { m.Progress("users indexed", done, total) }); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	m.done = 0
	for _, t := range Tables() {
		if err := m.compare(ctx, t); err != nil {
			return fmt.Errorf("verify: %w", err)
		}
	}
	meta, err := m.Meta(ctx)
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	if err := m.target.Install(ctx, meta); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	return nil
}

// copy copies the rows of a table after the stored cursor.
func (m *mover) copy(ctx context.Context, t *Table) error {
	var after Row
	if cursor := m.state[t.Name]; cursor != nil {
		var err error
		if after, err = decodeRow(cursor); err != nil {
			return err
		}
		copied, err := m.target.Count(ctx, t)
		if err != nil {
			return err
		}
		m.done += int(copied)
	}
	for {
		chunk, err := m.Read(ctx, t, m.Order(t), after, m.ChunkRows)
		if err != nil || len(chunk.Rows) == 0 {
			return err
		}
		after = chunk.Last
		if err := m.target.Write(ctx, t, chunk.Rows, after.encode()); err != nil {
			return err
		}
		m.done += len(chunk.Rows)
		m.Progress("rows copied", m.done, m.total)
	}
}

// compare compares the rows of a table.
func (m *mover) compare(ctx context.Context, t *Table) error {
	for after := Row(nil); ; {
		want, err := m.Read(ctx, t, t.Key, after, m.ChunkRows)
		if err != nil {
			return err
		}
		got, err := m.target.Read(ctx, t, t.Key, after, m.ChunkRows)
		if err != nil {
			return err
		}
		for i := range max(len(want.Rows), len(got.Rows)) {
			switch {
			case i >= len(got.Rows):
				return fmt.Errorf("%s is missing in the target", t.describe(want.Rows[i]))
			case i >= len(want.Rows):
				return fmt.Errorf("%s is not in the source", t.describe(got.Rows[i]))
			case !equalRows(want.Rows[i], got.Rows[i]):
				return fmt.Errorf("%s differs", t.describe(want.Rows[i]))
			}
		}
		if len(want.Rows) == 0 {
			return nil
		}
		after = want.Last
		m.done += len(want.Rows)
		m.Progress("rows compared", m.done, m.total)
	}
}

// check checks the target, with its index.
func (m *mover) check(ctx context.Context) error {
	findings, err := m.target.Check(ctx, func(done, total int) { m.Progress("rows and users checked", done, total) })
	if err == nil && len(findings) > 0 {
		err = errors.New(strings.Join(findings, "; "))
	}
	return err
}
