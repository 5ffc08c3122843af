package sqlite

import (
	"path/filepath"
	"testing"
)

// BenchmarkOpen is the start of the store: a new file, and one that is there.
func BenchmarkOpen(b *testing.B) {
	for _, name := range []string{"new", "again"} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			for b.Loop() {
				if name == "new" {
					dir = b.TempDir()
				}
				s, err := Open(b.Context(), Options{Path: filepath.Join(dir, "users.db")})
				if err != nil {
					b.Fatal(err)
				}
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
