package main_test

import (
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
