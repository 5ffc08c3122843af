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
)

// variablePrefix begins the name of each environment variable that userd reads.
const variablePrefix = "USERD_"

// faultVariable chooses a planted fault, in a build that has them.
const faultVariable = "USERD_FAULT"

// serviceVariables matches what Kubernetes sets for a service named userd.
var serviceVariables = regexp.MustCompile(`^USERD_(SERVICE_(HOST|PORT(_.*)?)|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`) // never changed

// ignoredVariable is an environment variable that has no effect.
type ignoredVariable struct {
	name, reason, closest string // closest is empty where no name is alike
}

func (v ignoredVariable) attrs() []any {
	attrs := []any{slog.String("variable", v.name), slog.String("reason", v.reason)}
	if v.closest != "" {
		attrs = append(attrs, slog.String("closest", v.closest))
	}
	return attrs
}

// String describes the variable for people.
func (v ignoredVariable) String() string {
	text := v.name + ": " + v.reason
	if v.closest != "" {
		text += ", the closest is " + v.closest
	}
	return text
}

// checkEnvironment finds the variables that have no effect, and unsets those that are empty:
// deployments write NAME=${NAME} for what need not be set, so that an empty value means
// the default. An empty value of a flag that says who may call stays, and is an error.
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
		case value == "" && flag.Tag.Type != "given":
			ignored = append(ignored, ignoredVariable{name: name, reason: "empty, the default is used"})
			_ = os.Unsetenv(name) // it exists
		}
	}
	slices.SortFunc(ignored, func(a, b ignoredVariable) int { return cmp.Compare(a.name, b.name) })
	return ignored
}

// variables gives the flags of a command and of those below it by their variables.
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

// closest gives the name that differs least, empty if none is alike.
func closest(name string, names []string) (found string) {
	least := len(name)/4 + 1
	for _, candidate := range names {
		if d := distance(name, candidate); d < least {
			found, least = candidate, d
		}
	}
	return found
}

// distance counts the insertions, deletions and replacements of bytes between two texts
// (Levenshtein).
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
