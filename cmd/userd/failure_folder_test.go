package main_test

import (
	"strings"
	"testing"
	"time"
)

// A folder that cannot be synced may forget the name of the new file: the program does
// not start on it. (fsync is what the driver and Go call, see inject.)
func TestFolderThatCannotBeSynced(t *testing.T) {
	t.Parallel()
	ctx := within(t, time.Minute)
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
			t.Errorf("does not say what failed:\n%s", out)
		}
	}
}
