package main_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
)

// After its files were removed, replaced or truncated, the store is read-only: writes to the
// open files would be lost.
func TestFileRemovedOrReplaced(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(path string) error{
		"database removed": os.Remove,
		"WAL removed":      func(path string) error { return os.Remove(path + "-wal") },
		"database replaced": func(path string) error {
			return errors.Join(os.WriteFile(path+".new", nil, 0o600), os.Rename(path+".new", path))
		},
		"WAL truncated":      func(path string) error { return os.Truncate(path+"-wal", 0) },
		"database truncated": func(path string) error { return os.Truncate(path, 8192) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, hangTimeout)
			s := startFailureTest(ctx, t, t.TempDir())
			writes := s.watch(ctx, writesName)
			s.awaitServing(ctx, t, writes)
			if err := change(filepath.Join(s.program.dir, databaseFile)); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				mustBe(t, s.create(ctx), connect.CodeFailedPrecondition, "STORE_READ_ONLY")
			}
			writes.await(ctx, t, grpchealth.StatusNotServing)
			if _, text := s.readyz(ctx, t); !hasAll(text, []string{"writes: ", "removed, replaced or truncated"}) {
				t.Errorf("/readyz = %q, want the reason", text)
			}
			s.process.output.await(t, "store is read-only until restart", databaseFile, "while it was open")
		})
	}
}
