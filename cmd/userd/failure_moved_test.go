package main_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
)

// A program whose file was taken away would go on writing to what nobody finds again:
// it must acknowledge nothing from then on, and say why.
func TestFileTakenAway(t *testing.T) {
	t.Parallel()
	for name, take := range map[string]func(path string) error{
		"the database removed": os.Remove,
		"the log removed":      func(path string) error { return os.Remove(path + "-wal") },
		"the database replaced": func(path string) error {
			return errors.Join(os.WriteFile(path+".new", nil, 0o600), os.Rename(path+".new", path))
		},
		"the log cut":      func(path string) error { return os.Truncate(path+"-wal", 0) },
		"the database cut": func(path string) error { return os.Truncate(path, 8192) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, time.Minute)
			s := startTroubled(ctx, t, t.TempDir())
			writes := s.watch(ctx, writesName)
			s.awaitServing(ctx, t, writes)
			if err := take(filepath.Join(s.program.dir, databaseFile)); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				mustBe(t, s.create(ctx), connect.CodeFailedPrecondition, "STORE_READ_ONLY")
			}
			writes.await(ctx, t, grpchealth.StatusNotServing)
			if _, text := s.readyz(ctx, t); !hasAll(text, []string{"writes: ", "removed, replaced or truncated"}) {
				t.Errorf("/readyz: %q", text)
			}
			s.process.output.await(t, "the store takes no more writes", databaseFile, "while it was open")
		})
	}
}
