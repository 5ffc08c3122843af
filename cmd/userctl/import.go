package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// importCommand is userctl import.
type importCommand struct {
	File       string `arg:"" optional:"" help:"File to read (default: standard input, which cannot be resumed)."`
	Format     string `enum:"auto,csv,ndjson" default:"auto" placeholder:"csv|ndjson" help:"Format (default: that of the file name, else csv)."`
	OnConflict string `enum:"fail,skip,update" default:"fail" placeholder:"fail|skip|update" help:"If a username or e-mail address is taken: refuse the row, skip it, or update the user (default: fail)."`
	DryRun     bool   `help:"Check each row without storing anything. Rows are not compared with each other."`
	State      string `placeholder:"FILE" help:"File with the state of an interrupted import, to repeat it within 24 hours (default: FILE.userctl-state)."`
	Report     string `placeholder:"FILE" help:"File to which refused rows are added (default: standard error)."`
}

var conflictPolicies = map[string]userv1.ConflictPolicy{
	"fail":   userv1.ConflictPolicy_CONFLICT_POLICY_FAIL,
	"skip":   userv1.ConflictPolicy_CONFLICT_POLICY_SKIP,
	"update": userv1.ConflictPolicy_CONFLICT_POLICY_UPDATE,
}

// Run imports users.
func (c *importCommand) Run(ctx context.Context, s *session) (err error) {
	if c.File == "" && c.State != "" {
		return newUsageError("--state needs a file, because standard input cannot be read again")
	}
	if err := s.reach(ctx); err != nil {
		return err
	}
	format := fileFormat(c.Format, c.File)
	source, total, state, err := c.open(s, format)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	rows, columns, err := newRowReader(source, format)
	if err != nil {
		return err
	}
	if err := showMapping(s.err, columns); err != nil {
		return err
	}
	refused := s.err
	if c.Report != "" {
		file, err := os.OpenFile(c.Report, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		refused = file
	}
	job := &importJob{
		session: s, state: state, rows: rows, refused: refused, dryRun: c.DryRun,
		policy: conflictPolicies[c.OnConflict], bar: newProgress(s.console, "rows", total),
	}
	err = job.run(ctx)
	job.bar.end()
	return c.finish(s, state, err)
}

// open opens the input. It reads a file once before, to count its rows and to recognize it when it is imported again.
func (c *importCommand) open(s *session, format string) (source io.ReadCloser, total int, state *importState, err error) {
	if c.File == "" {
		state, err = openState("", "")
		return io.NopCloser(s.lines), -1, state, err
	}
	file, err := os.Open(c.File)
	if err != nil {
		return nil, 0, nil, err
	}
	defer func() {
		if err != nil {
			_ = file.Close()
		}
	}()
	hash := sha256.New()
	_, _ = fmt.Fprintln(hash, format, c.OnConflict)
	if total, err = countRows(io.TeeReader(file, hash), format); err != nil {
		return nil, 0, nil, err
	}
	if _, err = file.Seek(0, io.SeekStart); err != nil {
		return nil, 0, nil, err
	}
	path := c.State
	switch {
	case c.DryRun:
		path = ""
	case path == "":
		path = c.File + ".userctl-state"
	}
	state, err = openState(path, hex.EncodeToString(hash.Sum(nil)))
	return file, total, state, err
}

// countRows reads all rows.
func countRows(r io.Reader, format string) (int, error) {
	rows, _, err := newRowReader(r, format)
	for n := 0; ; n++ {
		if err == nil {
			_, err = rows.Read()
		}
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

func showMapping(w io.Writer, columns []column) error {
	shown := table{out: w}
	for _, c := range columns {
		target := c.target
		if c.set == nil {
			target = "(ignored, the server sets it)"
		}
		shown.add("column "+c.name, "-> "+target)
	}
	return shown.flush()
}

// finish prints the result. The state file of an import that is not complete is kept.
func (c *importCommand) finish(s *session, state *importState, err error) error {
	if err != nil {
		if state.path != "" {
			_, _ = fmt.Fprintf(s.err, "stopped after %d rows; run the same command again to continue\n", state.Rows)
		}
		return err
	}
	if err := state.remove(); err != nil {
		return err
	}
	counts := state.Summary
	parts := []string{fmt.Sprintf("%d created", counts.Created), fmt.Sprintf("%d updated", counts.Updated), fmt.Sprintf("%d unchanged", counts.Unchanged)}
	if c.DryRun {
		parts = []string{fmt.Sprintf("%d valid", counts.Valid)}
	}
	parts = append(parts, fmt.Sprintf("%d refused", counts.Refused))
	if _, err := fmt.Fprintf(s.err, "%d rows: %s\n", state.Rows, strings.Join(parts, ", ")); err != nil {
		return err
	}
	if counts.Refused > 0 {
		return fmt.Errorf("%d of %d rows were refused", counts.Refused, state.Rows)
	}
	return nil
}
