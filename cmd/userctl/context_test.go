package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/yourorg/userservice/service/servertest"
)

// Flags are used before variables, and variables before the current context. The credentials of a context do not reach
// another server, unless both are flags.
func TestPrecedence(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("USERCTL_CONFIG", servertest.WriteFile(t, dir, "config.yaml", []byte(`
current_context: a
contexts:
  a: {server: ["http://a", "http://a2"], token: ta}
  b: {server: [http://b], token_file: tb, ca: /ca, cert: cert, key: /key}
`)))
	b := settings{Server: []string{"http://b"}, TokenFile: filepath.Join(dir, "tb"), CA: "/ca", Cert: filepath.Join(dir, "cert"), Key: "/key"}
	with := func(s settings, change func(*settings)) settings {
		change(&s)
		return s
	}
	a := []string{"http://a", "http://a2"}
	for _, c := range []struct {
		env, args string
		want      settings
	}{
		{"", "", settings{Server: a, Token: "ta"}},
		{"", "--context b", b},
		{"CONTEXT=b", "", b},
		{"CONTEXT=a", "--context b", b},
		{"", "--server http://c", settings{Server: []string{"http://c"}}},
		{"SERVER=http://c", "", settings{Server: []string{"http://c"}}},
		{"SERVER=http://c TOKEN=x", "", settings{Server: []string{"http://c"}, Token: "x"}},
		{"SERVER=http://c", "-s http://d", settings{Server: []string{"http://d"}}},
		{"CONTEXT=b", "--server http://c", settings{Server: []string{"http://c"}}},
		{"SERVER=http://c CONTEXT=b", "", settings{Server: []string{"http://c"}}},
		{"SERVER=http://c TOKEN=x CA=/other", "--context b", b},
		{"TOKEN=x", "--context b --token y", with(b, func(s *settings) { s.Token, s.TokenFile = "y", "" })},
		{"", "--server http://c --context b", with(b, func(s *settings) { s.Server = []string{"http://c"} })},
		{"TOKEN=x", "", settings{Server: a, Token: "x"}},
		{"TOKEN=x", "--token y", settings{Server: a, Token: "y"}},
		{"TOKEN_FILE=/x CA=/y", "", settings{Server: a, TokenFile: "/x", CA: "/y"}},
		{"CONFIG=" + servertest.WriteFile(t, dir, "empty.yaml", nil), "", settings{}},
	} {
		t.Run(c.env+" "+c.args, func(t *testing.T) {
			for pair := range strings.FieldsSeq(c.env) {
				name, value, _ := strings.Cut(pair, "=")
				t.Setenv("USERCTL_"+name, value)
			}
			var all commands
			parser, err := newParser(t.Context(), &all, console{})
			if err != nil {
				t.Fatal(err)
			}
			command, err := parser.Parse(append(strings.Fields(c.args), "list"))
			if err != nil {
				t.Fatal(err)
			}
			if err := all.useContext(command, io.Discard); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, all.settings); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}
		})
	}
}

// Only the user can read a configuration file, also one that a link leads to.
func TestConfigFileMode(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "folder", "config.yaml")
	t.Setenv("USERCTL_CONFIG", path)
	for _, empty := range []string{"", "contexts:\n"} {
		servertest.WriteFile(t, dir, "empty.yaml", []byte(empty))
		if r := onContexts(t, "set", "prod", "--server", "http://localhost", "--config", filepath.Join(dir, "empty.yaml")); r.status != statusOK {
			t.Errorf("context set in a file with %q: %+v", empty, r)
		}
	}
	if r := onContexts(t, "set", "prod", "--server", "https://a.example.org", "--token", "secret"); r.status != statusOK {
		t.Fatalf("context set: %+v", r)
	}
	link := filepath.Join(dir, "link.yaml")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if r := onContexts(t, "set", "dev", "--server", "http://localhost", "--config", link); r.status != statusOK {
			t.Fatalf("context set: %+v", r)
		}
	}
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): os.ModeDir | 0o700, link: os.ModeSymlink | 0o777} {
		if info, err := os.Lstat(name); err != nil || info.Mode() != want {
			t.Errorf("mode of %s = %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
	want := "current_context: prod\ncontexts:\n  dev:\n    server: ['http://localhost']\n  prod:\n    server: ['https://a.example.org']\n    token: secret\n"
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("the file is\n%s%v, want\n%s", got, err, want)
	}
}

// onContexts runs userctl context.
func onContexts(t *testing.T, args ...string) result {
	t.Helper()
	return runWithout(t, append([]string{"context"}, args...)...)
}

// runWithout runs a command with the variables of the test, and without masks.
func runWithout(t *testing.T, args ...string) result {
	t.Helper()
	var out, stderr bytes.Buffer
	status := run(t.Context(), args, console{in: strings.NewReader(""), out: &out, err: &stderr})
	return result{out.String(), stderr.String(), status}
}

// A token that other users can read is reported.
func TestExposedToken(t *testing.T) {
	s := servertest.Start(t)
	path := servertest.WriteFile(t, t.TempDir(), "config.yaml", []byte("contexts:\n  test:\n    server: ["+s.URL()+"]\n    token: secret\n"))
	args := []string{"list", "--config", path, "--context", "test"}
	for mode, want := range map[os.FileMode]string{
		0o600: "",
		0o640: "userctl: other users can read the token in " + path + "; run chmod 600 " + path + "\n",
	} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if r := userctl(t, s, args...); r.err != want || r.status != statusOK {
			t.Errorf("mode %o: %q, exit status %d, want %q, 0", mode, r.err, r.status, want)
		}
	}
}

func TestBadConfigFiles(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("USERCTL_SERVER", "")
	if err := os.Unsetenv("USERCTL_SERVER"); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"contexts: 7":                           "cannot unmarshal",
		"context: {}":                           "field context not found",
		"contexts: {a: {sever: [http://a]}}":    "field sever not found",
		"current_context: a\ncontexts: {b: {}}": `no context is named "a"`,
	} {
		path := servertest.WriteFile(t, dir, "config.yaml", []byte(text))
		var stderr bytes.Buffer
		status := run(t.Context(), []string{"list", "--config", path}, console{in: strings.NewReader(""), out: io.Discard, err: &stderr})
		if got := stderr.String(); !slices.Contains([]int{statusUsage, statusNotFound}, status) || !strings.Contains(got, want) || !strings.Contains(got, path) {
			t.Errorf("with %q: exit status %d, %q, want %q", text, status, got, want)
		}
	}
}
