package server_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/yourorg/userservice/"

// mayImport lists the allowed imports between packages of this module, except in tests. A package
// that is not listed may import nothing local; "..." at the end of a name includes all packages below.
//
// The domain is independent of protocols and databases, handlers depend only on the interface of the
// store, and packages below the mux are independent of users. Only package server imports all others.
var mayImport = map[string][]string{
	"cmd/userctl": {"client", "gen/..."},
	"cmd/userd":   {"service/server", "service/fair", "service/auth", "service/auth/devtoken", "service/telemetry", "service/store/...", "service/user"},

	"client": {"gen/..."},

	// Handlers record the caller in the log.
	"service":           {"service/user", "service/feed", "service/batch", "service/filter", "service/fieldmask", "service/pagetoken", "service/auth", "service/budget", "service/validate", "gen/..."},
	"service/batch":     {"service/user", "service/budget", "service/fair", "service/feed", "service/rpcstatus", "gen/..."},
	"service/filter":    {"service/user"},
	"service/fieldmask": {"service/user"},
	"service/pagetoken": {"service/user"},
	"service/store/sqlite": {
		"service/fair", "service/user", "service/clock",
		"service/store/check", "service/store/decide", "service/store/encoding", "service/store/group", "service/store/move", "service/store/page", "service/store/tokens",
	},
	"service/store/postgres": {
		"service/fair", "service/user", "service/clock",
		"service/store/check", "service/store/decide", "service/store/encoding", "service/store/group", "service/store/move", "service/store/page", "service/store/tokens",
	},
	// Shared by the stores.
	"service/store/check":    {"service/user", "service/store/tokens"},
	"service/store/decide":   {"service/user", "service/store/encoding", "service/store/tokens"},
	"service/store/encoding": {"service/user"},
	"service/store/group":    {"service/fair", "service/user", "service/store/decide"},
	"service/store/move":     {"service/clock", "service/store/encoding"},
	"service/store/page":     {"service/user"},
	"service/store/tokens":   {"service/user"},
	"service/store/traced":   {"service/user"},
	"service/store/faulty":   {"service/user"},
	"service/feed":           {"service/fair", "service/user"},
	// The table of errors is shared by handlers, interceptors and middleware, which must not import
	// each other.
	"service/user":      {"service/fair"},
	"service/rpcstatus": {"service/user"},
	"service/validate":  {"service/user", "gen/..."},
	"service/limits": {
		"service/auth", "service/budget", "service/fair", "service/forwarded", "service/http2", "service/httperror", "service/intercept", "service/transport", "service/user",
	},
	"service/admin":         {"service/browser"},
	"service/browser":       {"service/rpcstatus", "service/user"},
	"service/httperror":     {"service/rpcstatus", "service/user"},
	"service/auth":          {"service/fair", "service/filewatch", "service/user", "service/httperror"},
	"service/auth/devtoken": {"service/auth"},
	"service/intercept":     {"service/user", "service/auth", "service/rpcstatus", "service/budget", "service/fair", "gen/..."},
	"service/rest": {
		"service/fair", "service/user", "service/intercept", "service/codec", "service/httperror", "service/rpcstatus", "service/budget", "service/jsonpb", "service/rpc", "gen/...",
	},
	"service/rpc":       {"service/codec", "service/httperror", "gen/..."},
	"service/codec":     {"service/fair", "service/jsonpb", "service/budget"},
	"service/health":    {"service/user", "gen/..."},
	"service/janitor":   {"service/telemetry", "service/user"},
	"service/transport": {"service/filewatch", "service/fair", "service/codec", "service/budget", "service/http2"},
	"service/server":    {"service/...", "gen/..."},

	"gen/user/v1/userv1connect": {"gen/..."},

	// Shared by tests of several packages.
	"service/store/storetest": {"service/user", "service/store/..."},
	"service/servertest":      {"service/...", "gen/..."},
}

// importedByAll lists packages that every package may import.
var importedByAll = []string{"service/panics", "service/protocol", "service/reqinfo", "service/throttle"}

func TestAllowedImports(t *testing.T) {
	t.Parallel()
	for _, p := range listPackages(t) {
		importer := strings.TrimPrefix(p.ImportPath, module)
		allowed := slices.Concat(mayImport[importer], importedByAll)
		for _, imported := range p.Imports {
			local, ok := strings.CutPrefix(imported, module)
			if !ok || covers(allowed, local) {
				continue
			}
			t.Errorf("%s imports %s; it may import, of this module: %s",
				importer, local, strings.Join(append(allowed, "nothing else"), ", "))
		}
	}
}

// TestImportsInArchitecture compares the list in ARCHITECTURE.md with mayImport.
func TestImportsInArchitecture(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, importer := range slices.Sorted(maps.Keys(mayImport)) {
		fmt.Fprintf(&want, "    %s -> %s\n", importer, strings.Join(slices.Sorted(slices.Values(mayImport[importer])), ", "))
	}
	fmt.Fprintf(&want, "    all -> %s\n", strings.Join(importedByAll, ", "))
	if !strings.Contains(string(text), "\n\n"+want.String()+"\n") {
		t.Errorf("ARCHITECTURE.md does not contain the list of allowed imports, which is\n%s", &want)
	}
}

func covers(allowed []string, local string) bool {
	return slices.ContainsFunc(allowed, func(name string) bool {
		parent, all := strings.CutSuffix(name, "/...")
		return local == parent || all && strings.HasPrefix(local, parent+"/")
	})
}

type listed struct {
	ImportPath string
	Imports    []string // without those of tests
}

func listPackages(t *testing.T) []listed {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", module+"...")
	out, err := command.Output()
	if err != nil {
		t.Fatalf("list the packages: %v", err)
	}
	var all []listed
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}
