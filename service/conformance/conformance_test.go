package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// serverVariable makes the test binary run the server under test.
const serverVariable = "USERD_CONFORMANCE_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(serverVariable) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// The conformance runner tests all protocols, codecs, compressions and HTTP versions of
// connect-go, without known failures.
func TestConformance(t *testing.T) {
	runner := build(t, "connectrpc.com/conformance/cmd/connectconformance")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	command := exec.CommandContext(t.Context(), runner,
		"--conf", "config.yaml", "--mode", "server", "--max-servers", "2", "--parallel", "4", "--", self)
	command.Env = append(os.Environ(), serverVariable+"=1")
	command.Stdout = &out
	err = command.Run()
	summary := regexp.MustCompile(`(\d+) passed, (\d+) failed`).FindSubmatch(out.Bytes())
	if err != nil || summary == nil {
		t.Fatalf("conformance runner: %v; output:\n%s", err, tail(out.Bytes()))
	}
	if passed, want := string(summary[1]), "3640"; passed != want {
		t.Errorf("conformance cases passed = %s, want %s", passed, want)
	}
	t.Logf("%s", summary[0])
}

// build builds a tool of the module.
func build(t *testing.T, path string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), filepath.Base(path))
	command := exec.CommandContext(t.Context(), "go", "build", "-o", program, path)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", path, err, out)
	}
	return program
}

func tail(text []byte) []byte { return text[max(0, len(text)-8<<10):] }
