package main_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/auth"
)

// A flag that is to lock the door does not leave it open because a variable of the shell
// is not set, or a variable of the environment is empty.
func TestEmptyFlagsOfCallersAreRefused(t *testing.T) {
	for _, flag := range []string{"--jwt-jwks", "--jwt-issuer", "--jwt-audience", "--tls-cert", "--tls-client-ca", "--tls-client-rules"} {
		variable := "USERD_" + strings.ToUpper(strings.ReplaceAll(strings.TrimPrefix(flag, "--"), "-", "_")) + "="
		byFlag := exec.CommandContext(t.Context(), build(t, ""), flag, "")
		byVariable := exec.CommandContext(t.Context(), build(t, ""))
		byVariable.Env = append(byVariable.Environ(), variable)
		for _, cmd := range []*exec.Cmd{byFlag, byVariable} {
			cmd.Dir = t.TempDir()
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), flag) || !strings.Contains(string(out), "given and empty") {
				t.Errorf("%v: %v: %s", cmd.Args[1:], err, out)
			}
		}
	}
}

// Operators write the names of permissions into tokens and rules: the README has them all.
func TestReadmeNamesEveryPermission(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range auth.AllPermissions().List() {
		if !strings.Contains(string(text), "\n| `"+string(p)+"` |") {
			t.Errorf("the README does not say what %s allows", p)
		}
	}
}
