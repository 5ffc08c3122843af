package main

import (
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/yourorg/userservice/service/server"
)

// The environment variable of each flag is USERD_ and its name, in upper case and with underscores.
func TestVariablesAreNamedLikeFlags(t *testing.T) {
	t.Parallel()
	parser, err := kong.New(new(commands), kong.DefaultEnvars("USERD"), server.Flags(), kong.Vars{"version": ""})
	if err != nil {
		t.Fatal(err)
	}
	known := variables(parser.Model.Node)
	for got, flag := range known {
		if want := variablePrefix + strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_")); got != want {
			t.Errorf("the variable of --%s is %s, want %s", flag.Name, got, want)
		}
	}
	if len(known) < 40 {
		t.Errorf("got %d flags, want all", len(known))
	}
}
