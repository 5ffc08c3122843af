package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// onTerminal runs a command on a terminal.
func onTerminal(t *testing.T, s *servertest.Server, env []string, args ...string) *terminal {
	t.Helper()
	folder, base := program(t)
	base = append(base, "USERCTL_SERVER="+s.URL(), "TERM=xterm", "NO_COLOR=", "PAGER=cat")
	return startTerminal(t, folder, append(base, env...), append([]string{folder + "/userctl"}, args...)...)
}

// exit waits for the exit, and returns the output with its line ends and the exit status.
func (x *terminal) exit(t *testing.T) (string, int) {
	t.Helper()
	err := <-x.exited
	status := 0
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		status = failed.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(mask(x.String()), "\r\n", "\n"), status
}

// importNumbered creates users with numbers.
func importNumbered(t *testing.T, s *servertest.Server, n int) {
	t.Helper()
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "{\"username\":\"user %04d\",\"email\":\"user%04d@example.org\"}\n", i, i)
	}
	must(t, s, "import", servertest.WriteFile(t, t.TempDir(), "users.ndjson", []byte(text.String())))
}

// A table on a terminal has colors, unless NO_COLOR is set, and fits the width, with ids and times in full.
func TestTableOnTerminal(t *testing.T) {
	s := servertest.Start(t)
	must(t, s, "create", "Ada Lovelace", "ada.lovelace@example.org", "-t", "math")
	must(t, s, "create", "デモ用の長い名前", "demo@example.org")
	must(t, s, "status", "set", "demo@example.org", "suspended")
	want := "\x1b[1mUSER ID\x1b[0m             \x1b[1mUSERNAME\x1b[0m   \x1b[1mEMAIL\x1b[0m       \x1b[1mSTATUS\x1b[0m     \x1b[1mTAGS\x1b[0m  \x1b[1mUPDATED\x1b[0m\n" +
		"<USER-ID--------->  Ada Love…  ada.lovel…  \x1b[32mactive\x1b[0m     math  <TIME-------------->\n" +
		"<USER-ID--------->  デモ用の…  demo@exam…  \x1b[31msuspended\x1b[0m        <TIME-------------->\n"
	if got, status := onTerminal(t, s, nil, "list", "--order-by", "username").exit(t); got != want || status != 0 {
		t.Errorf("list printed\n%s\nexit status %d, want\n%s", got, status, want)
	}
	got, _ := onTerminal(t, s, []string{"NO_COLOR=1"}, "list", "--order-by", "username").exit(t)
	if want = removeColors(want); got != want {
		t.Errorf("list with NO_COLOR printed\n%s\nwant\n%s", got, want)
	}
}

func removeColors(text string) string {
	return strings.NewReplacer(bold, "", faint, "", red, "", green, "", yellow, "", normal, "").Replace(text)
}

// Output on a terminal is shown in PAGER. The command succeeds although the pager ends before it.
func TestPager(t *testing.T) {
	s := servertest.Start(t)
	importNumbered(t, s, 1500)
	for _, c := range []struct {
		pager string
		args  []string
		want  string // first line
		lines int
	}{
		{"sed 's/^/paged: /'", []string{"list", "--limit", "3"}, "paged: " + bold, 4},
		{"sed 's/^/paged: /'", []string{"list", "--limit", "3", "--no-pager"}, bold + "USER ID", 4},
		{"", []string{"list", "--limit", "3"}, bold + "USER ID", 4},
		{"head -n 2", []string{"list"}, bold + "USER ID", 2},
		{"sed 's/^/paged: /'", []string{"activities", "--limit", "2", "-o", "ndjson"}, `paged: {"activityId"`, 2},
		{"sed 's/^/paged: /'", []string{"status", "get", "user 0000"}, bold + "USER ID", 2},
	} {
		got, status := onTerminal(t, s, []string{"PAGER=" + c.pager}, c.args...).exit(t)
		if !strings.HasPrefix(got, c.want) || strings.Count(got, "\n") != c.lines || status != 0 {
			t.Errorf("%s with PAGER=%q: exit status %d, %q, want %d lines from %q on", c.args, c.pager, status, got, c.lines, c.want)
		}
	}
}

// Without PAGER, less shows output that is longer than the terminal.
func TestLess(t *testing.T) {
	requireProgram(t, "less")
	s := servertest.Start(t)
	importNumbered(t, s, 100)
	unset := "env -u PAGER -u LESS userctl list --order-by username --limit "
	_, env := program(t)
	env = append(env, "USERCTL_SERVER="+s.URL(), "TERM=xterm")
	x := startTerminal(t, ".", env, "sh", "-c", unset+"100")
	x.wait(t, "user 0021")
	x.wait(t, "\n:")
	x.send(t, "q")
	if got, status := x.exit(t); status != 0 || strings.Contains(got, "user 0050") {
		t.Errorf("exit status %d, %q, want 0 and one page", status, got)
	}
	if got, status := startTerminal(t, ".", env, "sh", "-c", unset+"5").exit(t); status != 0 || strings.Count(got, "\n") != 6 {
		t.Errorf("exit status %d, %q, want 0 and six lines", status, got)
	}
}

func TestPromptOnTerminal(t *testing.T) {
	s := servertest.Start(t)
	must(t, s, "create", "Ada Lovelace", "ada@example.org")
	for input, want := range map[string]struct {
		end    string
		status int
	}{"n": {"userctl: not confirmed, nothing was changed\n", statusUsage}, "y": {"<TIME-------------->\n", statusOK}} {
		x := onTerminal(t, s, nil, "delete", "ada@example.org")
		x.wait(t, "delete user ada@example.org? [y/N] ")
		x.send(t, input+"\n")
		if got, status := x.exit(t); status != want.status || !strings.HasSuffix(got, want.end) {
			t.Errorf("with %q: exit status %d, %q, want %d, %q", input, status, got, want.status, want.end)
		}
	}
}

// holding is a store that holds items with the letter z until the end of their calls.
type holding struct{ user.Store }

func (h holding) Submit(ctx context.Context, batch user.Batch) *user.Pending {
	for _, change := range batch.Changes {
		if op, ok := change.Op.(*user.Create); ok && strings.HasPrefix(op.Values.Username, "z") {
			<-ctx.Done()
		}
	}
	return h.Store.Submit(ctx, batch)
}

// An import on a terminal shows its progress, and after Ctrl-C how to continue.
func TestProgressOnTerminal(t *testing.T) {
	s := servertest.Start(t, servertest.Store(func(store user.Store) user.Store { return holding{store} }))
	var text strings.Builder
	text.WriteString("username,email\n")
	for i := range 10_000 {
		fmt.Fprintf(&text, "%s %d,user%d@example.org\n", map[bool]string{true: "user", false: "z"}[i < 4000], i, i)
	}
	file := servertest.WriteFile(t, t.TempDir(), "people.csv", []byte(text.String()))
	x := onTerminal(t, s, nil, "import", file)
	x.waitFor(t, func(output string) bool {
		return strings.Contains(output, "/10000, ") && strings.Contains(output, " rows/s)") && strings.Contains(output, "%")
	})
	x.send(t, "\x03")
	got, status := x.exit(t)
	if want := "stopped after 0 rows; run the same command again to continue\nuserctl: interrupted\n"; status != statusInterrupted || !strings.HasSuffix(got, want) {
		t.Errorf("exit status %d, %q, want %d and the end %q", status, got, statusInterrupted, want)
	}
}

// Events have colors on a terminal. Ctrl-C ends a stream with a summary.
func TestEventsOnTerminal(t *testing.T) {
	s := servertest.Start(t)
	must(t, s, "create", "Ada Lovelace", "ada@example.org")
	x := onTerminal(t, s, nil, "watch")
	x.wait(t, "synced")
	x.send(t, "\x03")
	want := faint + "1" + normal + "  user  <USER-ID--------->  Ada Lovelace  ada@example.org  " + green + "active" + normal + "\n" +
		faint + "1" + normal + "  " + faint + "synced" + normal + "\n" +
		"^Cstopped after 2 events at position 1\n"
	if got, status := x.exit(t); got != want || status != statusOK {
		t.Errorf("exit status %d, %q, want 0, %q", status, got, want)
	}
}
