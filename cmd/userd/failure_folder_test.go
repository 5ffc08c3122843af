package main_test

import (
	"slices"
	"strings"
	"testing"
)

// The program does not start if it cannot sync the directory of a new database file.
func TestDirectorySyncFails(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	for fault, starts := range map[string]bool{"EIO": false, "EINVAL": true, "EOPNOTSUPP": true} {
		dir := t.TempDir()
		p := program{dir: dir, wrap: []string{
			requireStrace(t), "-f", "-o", "/dev/null", "-P", dir, "-e", "trace=fsync", "-e", "inject=fsync:error=" + fault,
		}}
		if starts {
			p.start(t)
			continue
		}
		if out := p.mustFail(ctx, t); !strings.Contains(out, "input/output error") {
			t.Errorf("output does not contain the sync error:\n%s", out)
		}
	}
}

// A backup whose directory cannot be synced is removed. A restore says that the store is in place, and where the replaced one is.
func TestDirectorySyncFailsForCopies(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	dir := t.TempDir()
	p := program{dir: dir}
	p.start(t).terminate(t)
	if out, err := p.run(ctx, t, "backup", "first.db"); err != nil {
		t.Fatalf("backup: %v\n%s", err, out)
	}
	p.wrap = []string{requireStrace(t), "-f", "-o", "/dev/null", "-P", dir, "-e", "trace=fsync", "-e", "inject=fsync:error=EIO"}
	if out := p.mustFail(ctx, t, "backup", "second.db"); !strings.Contains(out, "input/output error") {
		t.Errorf("backup printed %q, want the sync error", out)
	}
	if names := namesIn(t, dir); slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, "second.db") }) {
		t.Errorf("files after a failed backup: %v, want none of it", names)
	}
	out := p.mustFail(ctx, t, "restore", "--force", "first.db")
	for _, want := range []string{"input/output error", "the store is restored", "renamed "} {
		if !strings.Contains(out, want) {
			t.Errorf("restore printed %q, want %q", out, want)
		}
	}
}
