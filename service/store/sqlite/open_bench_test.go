package sqlite

import (
	"path/filepath"
	"testing"
)

// BenchmarkOpen opens a new and an existing file.
func BenchmarkOpen(b *testing.B) {
	for _, name := range []string{"new", "existing"} {
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
