package main_test

import (
	"os/exec"
	"strings"
	"testing"
)

// Unknown and empty variables are logged at start. An empty variable means the default.
func TestIgnoredVariablesAreLogged(t *testing.T) {
	run := program{dir: t.TempDir(), env: []string{
		"USERD_LISTN=127.0.0.1:1", "USERD_MAX_MESAGE_BYTES=1KiB", "USERD_SOMETHING_ELSE_ALTOGETHER=x", "userd_store=sqlite:other.db",
		"USERD_MAX_STREAM_ITEMS=", "USERD_INSECURE_NO_AUTH=", "USERD_REFLECTION=", "USERD_CORS_ORIGIN=", "USERD_STORE=", "USERD_LOG_LEVEL=",
		"USERD_SERVICE_HOST=10.0.0.1", "USERD_PORT=tcp://10.0.0.1:80", "USERD_PORT_80_TCP_ADDR=10.0.0.1", "OTHER_USERD_LISTEN=",
	}}.start(t)
	for name, rest := range map[string]string{
		"USERD_LISTN":                     "closest=USERD_LISTEN",
		"USERD_MAX_MESAGE_BYTES":          "closest=USERD_MAX_MESSAGE_BYTES",
		"userd_store":                     "closest=USERD_STORE",
		"USERD_SOMETHING_ELSE_ALTOGETHER": `reason="unknown variable"`,
		"USERD_MAX_STREAM_ITEMS":          "the default is used",
		"USERD_INSECURE_NO_AUTH":          "the default is used",
		"USERD_REFLECTION":                "the default is used",
		"USERD_CORS_ORIGIN":               "the default is used",
		"USERD_STORE":                     "the default is used",
		"USERD_LOG_LEVEL":                 "the default is used",
	} {
		run.output.await(t, "level=WARN", "environment variable ignored", "variable="+name+" ", rest)
	}
	run.terminate(t)
	text := run.output.all()
	if got := strings.Count(text, "environment variable ignored"); got != 10 {
		t.Errorf("%d ignored variables logged, want 10:\n%s", got, text)
	}
}

// Commands without a log print ignored variables to stderr.
func TestIgnoredVariablesArePrinted(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), build(t, ""), "version")
	cmd.Env = append(cmd.Environ(), "USERD_STOER=x")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || !strings.HasPrefix(string(out), "userd ") {
		t.Errorf("version = %q, %v", out, err)
	}
	if want := "userd: environment variable ignored: USERD_STOER: unknown variable, did you mean USERD_STORE?\n"; stderr.String() != want {
		t.Errorf("stderr = %q, want %q", stderr.String(), want)
	}
}

// Each flag has the variable of its name in upper case.
func TestVariablesHaveTheNamesOfFlags(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), build(t, ""), "serve", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	help := strings.Join(strings.Fields(string(out)), " ")
	for _, flag := range []string{"http2", "listen", "max-connection-age"} {
		want := "($USERD_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_")) + ")"
		if _, after, ok := strings.Cut(help, "--"+flag+"="); !ok || !strings.Contains(after[:min(len(after), 400)], want) {
			t.Errorf("help of --%s has no %s", flag, want)
		}
	}
}
