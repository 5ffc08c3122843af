package main_test

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// The two commands that userd token prints work as they are.
func TestTokenCanBeTriedInTwoCommands(t *testing.T) {
	dir := t.TempDir()
	token := func(flags ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), build(t, ""), append([]string{"token"}, flags...)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	out := token("--subject", "ann", "--permission", "users.read", "--permission", "users.write")
	commands := regexp.MustCompile(`(?m)^(\S*userd\S*|curl) (.*)$`).FindAllStringSubmatch(out, -1)
	if len(commands) != 2 || commands[0][1] != build(t, "") || commands[1][1] != "curl" {
		t.Fatalf("got %s", out)
	}
	run := program{dir: dir, flags: strings.Fields(commands[0][2])}.start(t)
	curl := func(text string) string {
		t.Helper()
		text = strings.ReplaceAll(text, "127.0.0.1:8080", run.addr)
		answer, err := exec.CommandContext(t.Context(), "sh", "-c", "curl -sS "+text).CombinedOutput()
		if err != nil {
			t.Skipf("curl: %v: %s", err, answer)
		}
		return string(answer)
	}
	if answer := curl(commands[1][2]); strings.Contains(answer, `"code"`) || !strings.HasPrefix(answer, "{") {
		t.Errorf("got %s", answer)
	}
	created := curl(commands[1][2] + ` -H 'Content-Type: application/json' -d '{"username": "ada", "email": "ada@example.com"}'`)
	if !strings.Contains(created, "ada@example.com") {
		t.Errorf("got %s", created)
	}
	if answer := curl("http://127.0.0.1:8080/api/v1/users"); !strings.Contains(answer, "CREDENTIALS_MISSING") {
		t.Errorf("without a token: got %s", answer)
	}
	for _, names := range []string{"users.rule", "", "users.read,"} {
		if out, err := exec.CommandContext(t.Context(), build(t, ""), "token", "--dir", dir, "--permission", names).CombinedOutput(); err == nil {
			t.Errorf("%q: a permission that there is not was given: %s", names, out)
		}
	}
	run.terminate(t)
}
