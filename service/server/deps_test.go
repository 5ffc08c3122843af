package server_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/yourorg/userservice/"

// mayImport says who may import whom, among the packages of this module and but for
// tests. A package that is missing may import nothing local; "..." at the end of a
// name stands for all below it, too.
//
// The rule keeps each decision in one place. The domain knows neither the wire nor a
// database, so a store or a protocol can be added without touching a rule of the
// service. Handlers see the store by its contract alone. What lies below the mux
// knows no users. Only package server sees all, and decides what goes where.
var mayImport = map[string][]string{
	"cmd/userd":   {"service/server", "service/auth", "service/telemetry", "service/store/...", "service/user"},
	"cmd/userctl": {"client", "gen/..."},
	"client":      {"gen/..."},

	// Handlers ask who calls, to write it into the log.
	"service":                {"service/user", "service/fair", "service/feed", "service/auth", "service/rpcstatus", "service/budget", "gen/..."},
	"service/store":          {"service/fair", "service/user", "service/clock"},
	"service/store/sqlite":   {"service/fair", "service/user", "service/clock"},
	"service/store/postgres": {"service/fair", "service/user", "service/clock"},
	"service/store/traced":   {"service/user"},
	"service/feed":           {"service/fair", "service/user"},
	// The one table of errors. It stands by itself, since those who share it may not
	// see each other: handlers, interceptors, and what refuses below them.
	"service/user":      {"service/fair"},
	"service/rpcstatus": {"service/user"},
	"service/auth":      {"service/user", "service/rpcstatus"},
	"service/intercept": {"service/user", "service/auth", "service/rpcstatus", "service/budget", "gen/..."},
	"service/rest": {
		"service/fair", "service/user", "service/intercept", "service/transport", "service/rpcstatus", "service/bounds", "service/budget", "service/jsonpb", "gen/...",
	},
	"service/transport": {"service/fair", "service/jsonpb", "service/budget"},
	"service/server":    {"service/...", "console", "gen/..."},

	"gen/user/v1/userv1connect": {"gen/..."},

	// Tests of several packages share these.
	"service/store/storetest": {"service/user", "service/store/..."},
	"service/servertest":      {"service/...", "gen/..."},
}

func TestWhoMayImportWhom(t *testing.T) {
	t.Parallel()
	for _, p := range listPackages(t) {
		importer := strings.TrimPrefix(p.ImportPath, module)
		allowed := mayImport[importer]
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

func covers(allowed []string, local string) bool {
	return slices.ContainsFunc(allowed, func(name string) bool {
		parent, all := strings.CutSuffix(name, "/...")
		return local == parent || all && strings.HasPrefix(local, parent+"/")
	})
}

type listed struct {
	ImportPath string
	Imports    []string // but for tests
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
