package main_test

import (
	"os/exec"
	"strings"
	"testing"
)

func TestVersionAndHelp(t *testing.T) {
	t.Parallel()
	for args, wants := range map[string][]string{
		"--version":  {"userd ", "(go1."},
		"version":    {"userd ", "(go1."},
		"help":       {"Usage: userd <command> [flags]", "\n  backup ", "\n  restore ", "--log-level"},
		"help token": {"Usage: userd token", "--raw"},
	} {
		out, err := exec.CommandContext(t.Context(), build(t, ""), strings.Fields(args)...).Output()
		if err != nil {
			t.Errorf("userd %s: %v", args, err)
		}
		for _, want := range wants {
			if !strings.Contains(string(out), want) {
				t.Errorf("userd %s printed %s, want %q", args, out, want)
			}
		}
	}
}
