package main

import (
	"cmp"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/yourorg/userservice/service/server"
)

// variablePrefix is the prefix of the environment variables of userd.
const variablePrefix = "USERD_"

// faultVariable selects an injected fault in a build with the tag "faults".
const faultVariable = "USERD_FAULT"

// serviceVariables matches the variables that Kubernetes sets for a service named userd.
var serviceVariables = regexp.MustCompile(`^USERD_(SERVICE_(HOST|PORT(_.*)?)|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// ignoredVariable is an environment variable that has no effect.
type ignoredVariable struct {
	name, reason, closest string // closest may be empty
}

func (v ignoredVariable) attrs() []any {
	attrs := []any{slog.String("variable", v.name), slog.String("reason", v.reason)}
	if v.closest != "" {
		attrs = append(attrs, slog.String("closest", v.closest))
	}
	return attrs
}

// String implements fmt.Stringer.
func (v ignoredVariable) String() string {
	text := v.name + ": " + v.reason
	if v.closest != "" {
		text += ", did you mean " + v.closest + "?"
	}
	return text
}

// checkEnvironment returns the USERD_ variables that are ignored, because they are unknown or
// empty, and unsets the empty ones: manifests with NAME=${NAME} set optional variables to
// the empty string. An empty value of an authentication flag (server.NonEmptyType) is
// kept, because it must be an error.
func checkEnvironment(app *kong.Application) (ignored []ignoredVariable) {
	known := variables(app.Node)
	for _, pair := range os.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(strings.ToUpper(name), variablePrefix) || name == faultVariable || serviceVariables.MatchString(name) {
			continue
		}
		switch flag, found := known[name]; {
		case !found:
			ignored = append(ignored, ignoredVariable{name, "unknown variable", closest(strings.ToUpper(name), slices.Sorted(maps.Keys(known)))})
		case value == "" && flag.Tag.Type != server.NonEmptyType:
			ignored = append(ignored, ignoredVariable{name: name, reason: "empty, the default is used"})
			_ = os.Unsetenv(name)
		}
	}
	slices.SortFunc(ignored, func(a, b ignoredVariable) int { return cmp.Compare(a.name, b.name) })
	return ignored
}

// variables returns the flags of a command and its subcommands by environment variable.
func variables(node *kong.Node) map[string]*kong.Flag {
	known := make(map[string]*kong.Flag)
	for _, flag := range node.Flags {
		for _, name := range flag.Envs {
			known[name] = flag
		}
	}
	for _, child := range node.Children {
		maps.Copy(known, variables(child))
	}
	return known
}

// closest returns the most similar name, or "" if none is similar.
func closest(name string, names []string) (found string) {
	least := len(name)/4 + 1
	for _, candidate := range names {
		if d := distance(name, candidate); d < least {
			found, least = candidate, d
		}
	}
	return found
}

// distance returns the Levenshtein distance in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0]++
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
