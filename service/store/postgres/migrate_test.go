package postgres

import (
	"log/slog"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/yourorg/userservice/service/store/pgtest"
)

// Of nodes that start at once on an empty database, one migrates the schema and the others wait.
func TestNodesMigrateInTurn(t *testing.T) {
	t.Parallel()
	const nodes = 3
	url := pgtest.Database(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	lock, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.Exec(t.Context(), lockMigration); err != nil {
		t.Fatal(err)
	}
	var opening sync.WaitGroup
	for range nodes {
		opening.Go(func() {
			s, err := Open(t.Context(), Options{URL: url, Logger: slog.New(slog.DiscardHandler)})
			if err == nil {
				err = s.Close()
			}
			if err != nil {
				t.Errorf("Open or Close beside other nodes = %v", err)
			}
		})
	}
	for waiting := 0; waiting < nodes; {
		if err := lock.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "+
			"AND database = (SELECT oid FROM pg_database WHERE datname = current_database())").Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	if err := lock.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	opening.Wait()
	var applied, versions int
	if err := conn.QueryRow(t.Context(), "SELECT count(*), count(DISTINCT version_id) FROM goose_db_version").Scan(&applied, &versions); err != nil {
		t.Fatal(err)
	}
	if applied != versions {
		t.Errorf("%d migrations were applied, want %d", applied, versions)
	}
}
