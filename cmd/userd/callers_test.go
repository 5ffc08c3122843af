package main_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/auth"
)

// Authentication flags must not be empty, as they would be with an unset shell variable.
func TestEmptyAuthenticationFlagsAreErrors(t *testing.T) {
	// A program that starts in spite of the flag would serve until it is killed.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, flag := range []string{"--jwt-jwks", "--jwt-issuer", "--jwt-audience", "--tls-cert", "--tls-client-ca", "--tls-client-rules"} {
		variable := "USERD_" + strings.ToUpper(strings.ReplaceAll(strings.TrimPrefix(flag, "--"), "-", "_")) + "="
		byFlag := exec.CommandContext(ctx, build(t, ""), flag, "")
		byVariable := exec.CommandContext(ctx, build(t, ""))
		byVariable.Env = append(byVariable.Environ(), variable)
		for _, cmd := range []*exec.Cmd{byFlag, byVariable} {
			cmd.Dir = t.TempDir()
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), flag) || !strings.Contains(string(out), "must not be empty") {
				t.Errorf("userd %v: error %v, want exit status 2: %s", cmd.Args[1:], err, out)
			}
		}
	}
}

func TestReadmeListsAllPermissions(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range auth.AllPermissions().List() {
		if !strings.Contains(string(text), "\n| `"+string(p)+"` |") {
			t.Errorf("the README does not list permission %s", p)
		}
	}
}
