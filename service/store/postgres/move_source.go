package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/yourorg/userservice/service/clock"
	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/store/move"
	"github.com/yourorg/userservice/service/user"
)

// Source is a store that is moved to another one. It reads one snapshot of the database, and locks the counter row: a node cannot
// write meanwhile, and Open fails.
type Source struct {
	moveReader

	fingerprint string
}

var _ move.Source = (*Source)(nil)

// OpenSource opens a database that no node may use.
func OpenSource(ctx context.Context, opts MoveOptions) (*Source, error) {
	r, err := connectForMove(ctx, opts.URL)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Source{moveReader: r}
	if err := s.open(ctx, opts); err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), s.Close())
	}
	return s, nil
}

func (s *Source) open(ctx context.Context, opts MoveOptions) error {
	if err := checkComplete(ctx, s.conn); err != nil {
		return err
	}
	if err := checkSchema(ctx, s.pool); err != nil {
		return err
	}
	observed, err := s.checkUnused(ctx, opts)
	if err != nil {
		return err
	}
	if _, err := s.conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ"); err != nil {
		return err
	}
	var names int
	var counter string
	err = s.conn.QueryRow(ctx, "SELECT names, position || ' ' || time || ' ' || first FROM meta FOR UPDATE").Scan(&names, &counter)
	switch state := sqlState(err); {
	case state == lockTimeout, state == serializationFailure:
		return errInUse
	case err != nil:
		return err
	case names != user.NamesVersion:
		return errors.New("its names were normalized by another version of the program: start userd serve once, and repeat")
	}
	writers, err := writersState(ctx, s.conn)
	if err == nil && writers != observed {
		err = errInUse
	}
	s.fingerprint = "postgres " + counter + " " + writers
	return err
}

// Fingerprint implements move.Source. Each transaction of a node changes the row of its process in writers.
func (s *Source) Fingerprint() string { return s.fingerprint }

// Order implements move.Source. Request ids are in the order of their times, as SQLite stores them.
func (s *Source) Order(t *move.Table) []string {
	if t.Name == move.Requests {
		return []string{"created_at", "id", "procedure", "caller"}
	}
	return t.Key
}

// Meta implements move.Source.
func (s *Source) Meta(ctx context.Context) (m move.Meta, err error) {
	var micros int64
	err = s.conn.QueryRow(ctx, "SELECT epoch, position, time, first, clock FROM meta, probe").Scan(&m.Epoch, &m.Position, &m.Time, &m.First, &micros)
	if micros > 0 {
		m.Clock = clock.Checkpoint{Time: encoding.FromMicros(micros)}
	}
	return m, err
}

// Retire implements move.Source. It ends the transaction, and with it the lock.
func (s *Source) Retire(ctx context.Context) error {
	_, err := s.conn.Exec(ctx, "UPDATE meta SET epoch = ''")
	if err != nil {
		return err
	}
	tag, err := s.conn.Exec(ctx, "COMMIT")
	if err == nil && tag.String() != "COMMIT" {
		err = errors.New("the transaction was rolled back")
	}
	return err
}
