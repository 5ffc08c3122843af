//go:build unix

package sqlite

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Restore by root keeps the owner of the store, so that the server can open it.
func TestRestoreKeepsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("changing the owner needs root")
	}
	const uid, gid = 12345, 23456
	path := filepath.Join(t.TempDir(), "users.db")
	backup := path + ".backup"
	s := openTest(t, path)
	if err := s.Backup(t.Context(), backup, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, uid, gid); err != nil {
		t.Fatal(err)
	}
	if err := Restore(t.Context(), backup, path, RestoreOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid != uid || stat.Gid != gid {
		t.Errorf("owner of the restored store = %v, want %d:%d", info.Sys(), uid, gid)
	}
}
