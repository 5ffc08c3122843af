package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// An import whose process is killed continues without importing a row twice, or losing one.
func TestImportOutlivesKills(t *testing.T) {
	var left atomic.Int64
	var mu sync.Mutex
	var process *os.Process
	kill := func() {
		mu.Lock()
		defer mu.Unlock()
		if err := process.Kill(); err != nil {
			t.Error(err)
		}
	}
	s := servertest.Start(t, servertest.Store(func(store user.Store) user.Store { return interrupting{store, &left, kill} }))
	const n = 12_000
	var text strings.Builder
	text.WriteString("username,email,status\n")
	for i := range n {
		fmt.Fprintf(&text, "user %d,user%d@example.org,%s\n", i, i, []string{"active", "inactive"}[i%2])
	}
	file := servertest.WriteFile(t, t.TempDir(), "people.csv", []byte(text.String()))
	folder, env := program(t)
	run := func(after int64) (string, error) {
		left.Store(after)
		command := exec.CommandContext(t.Context(), folder+"/userctl", "import", file, "--server", s.URL())
		command.Env = env
		var stderr strings.Builder
		command.Stderr = &stderr
		mu.Lock()
		err := command.Start()
		process = command.Process
		mu.Unlock()
		if err == nil {
			err = command.Wait()
		}
		return stderr.String(), err
	}
	for _, after := range []int64{1, 1500, 6400, 5000, 5900} {
		if out, err := run(after); err == nil || err.Error() != "signal: killed" {
			t.Fatalf("import = %v, want a kill after %d items: %s", err, after, out)
		}
	}
	out, err := run(1 << 40)
	if want := fmt.Sprintf("%d rows: %d created, 0 updated, 0 unchanged, 0 refused\n", n, n); err != nil || !strings.HasSuffix(out, want) {
		t.Errorf("the last import = %v, %s, want %q", err, out, want)
	}
	rows := strings.Count(must(t, s, "activities", "--limit", "0", "--action", "user.created", "-o", "ndjson"), "\n")
	inactive := strings.Count(must(t, s, "list", "--filter", "status = INACTIVE", "-o", "ndjson"), "\n")
	if rows != n || inactive != n/2 {
		t.Errorf("%d users were created, %d inactive, want %d and %d", rows, inactive, n, n/2)
	}
}
