package main_test

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// The commands that userd token prints work unmodified.
func TestTokenCommandsWork(t *testing.T) {
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
		t.Fatalf("userd token printed %s, want a userd and a curl command", out)
	}
	run := program{dir: dir, flags: strings.Fields(commands[0][2])}.start(t)
	curl := func(text string) string {
		t.Helper()
		text = strings.ReplaceAll(text, "127.0.0.1:8080", run.addr)
		response, err := exec.CommandContext(t.Context(), "sh", "-c", "curl -sS "+text).CombinedOutput()
		if err != nil {
			t.Skipf("curl: %v: %s", err, response)
		}
		return string(response)
	}
	if response := curl(commands[1][2]); strings.Contains(response, `"code"`) || !strings.HasPrefix(response, "{") {
		t.Errorf("list users: response %s", response)
	}
	created := curl(commands[1][2] + ` -H 'Content-Type: application/json' -d '{"username": "ada", "email": "ada@example.com"}'`)
	if !strings.Contains(created, "ada@example.com") {
		t.Errorf("create user: response %s", created)
	}
	if response := curl("http://127.0.0.1:8080/api/v1/users"); !strings.Contains(response, "CREDENTIALS_MISSING") {
		t.Errorf("without a token: response %s, want CREDENTIALS_MISSING", response)
	}
	raw := token("--raw", "--permission", "users.read")
	bearer := "Authorization: Bearer " + strings.TrimSuffix(raw, "\n")
	if response := curl("http://127.0.0.1:8080/api/v1/users -H '" + bearer + "'"); !strings.Contains(response, "ada@example.com") {
		t.Errorf("with %q, from userd token --raw: response %s", raw, response)
	}
	for _, names := range []string{"users.rule", "", "users.read,"} {
		if out, err := exec.CommandContext(t.Context(), build(t, ""), "token", "--dir", dir, "--permission", names).CombinedOutput(); err == nil {
			t.Errorf("userd token --permission %q succeeded: %s", names, out)
		}
	}
	run.terminate(t)
}
