package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// modeVariable makes the test binary run the server or the client under test.
const modeVariable = "USERD_CONFORMANCE"

func TestMain(m *testing.M) {
	switch os.Getenv(modeVariable) {
	case "server":
		main()
	case "client":
		if err := runClient(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "conformance client:", err)
			os.Exit(1)
		}
	default:
		os.Exit(m.Run())
	}
}

// The conformance runner tests all protocols, codecs, compressions and HTTP versions of
// connect-go, without known failures.
func TestConformance(t *testing.T) {
	runConformance(t, "3640", "--mode", "server", "--parallel", "4")
}

// The same for the transport of the Go client, but for bidirectional streams over HTTP/1.1.
func TestClientConformance(t *testing.T) {
	runConformance(t, "4638", "--mode", "client")
}

// runConformance runs the conformance runner in a mode, and compares the number of cases that pass.
func runConformance(t *testing.T, want string, mode ...string) {
	t.Helper()
	runner := build(t, "connectrpc.com/conformance/cmd/connectconformance")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	args := slices.Concat(mode, []string{"--conf", "config.yaml", "--max-servers", "2", "--", self})
	command := exec.CommandContext(t.Context(), runner, args...)
	command.Env = append(os.Environ(), modeVariable+"="+mode[1])
	command.Stdout, command.Stderr = &out, &out
	err = command.Run()
	summary := regexp.MustCompile(`(\d+) passed, (\d+) failed`).FindSubmatch(out.Bytes())
	if err != nil || summary == nil {
		t.Fatalf("conformance runner: %v; output:\n%s", err, tail(out.Bytes()))
	}
	if passed := string(summary[1]); passed != want {
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
