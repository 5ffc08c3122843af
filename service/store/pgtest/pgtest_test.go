package pgtest_test

import (
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/yourorg/userservice/service/store/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	return conn
}

// Each test has a database of its own, copied from a prepared one.
func TestDatabase(t *testing.T) {
	var template pgtest.Template
	prepared := 0
	for range 2 {
		url := template.Database(t, func(url string) error {
			prepared++
			conn := connect(t, url)
			_, err := conn.Exec(t.Context(), "CREATE TABLE numbers (n bigint)")
			if err == nil {
				err = conn.Close(t.Context())
			}
			return err
		})
		conn := connect(t, url)
		var rows int
		if _, err := conn.Exec(t.Context(), "INSERT INTO numbers VALUES (1)"); err != nil {
			t.Fatal(err)
		}
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM numbers").Scan(&rows); err != nil || rows != 1 {
			t.Errorf("rows = %d, %v, want 1", rows, err)
		}
	}
	if prepared != 1 {
		t.Errorf("the template was prepared %d times, want once", prepared)
	}
	var fsync string
	if err := connect(t, pgtest.Database(t)).QueryRow(t.Context(), "SHOW fsync").Scan(&fsync); err != nil || fsync != "on" {
		t.Errorf("fsync = %q, %v, want on", fsync, err)
	}
}

// Acknowledged rows are there after a server was killed and started again.
func TestServerRestarts(t *testing.T) {
	s, err := pgtest.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Remove(); err != nil {
			t.Error(err)
		}
	}()
	for i := range 2 {
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		conn := connect(t, s.URL())
		if i == 0 {
			_, err = conn.Exec(t.Context(), "CREATE TABLE numbers (n bigint)")
		} else {
			_, err = conn.Exec(t.Context(), "INSERT INTO numbers VALUES (1)")
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
	}
}
