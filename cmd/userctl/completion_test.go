package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/servertest"
)

// completions are lines with the words that replace the last one.
var completions = []struct{ line, want string }{
	{"userctl und", "undelete"},
	{"userctl status se", "set"},
	{"userctl status ", "get set sync watch"},
	{"userctl -v status set ada su", "suspended"},
	{"userctl list --o", "--output --order-by"},
	{"userctl list --order-by last", "last_activity_id"},
	{"userctl list --output ", "table json ndjson yaml"},
	{"userctl list -o js", "json"},
	{"userctl list --server http://a --output=nd", "--output=ndjson"},
	{"userctl list --output=json --lim", "--limit"},
	{"userctl update --status in", "inactive"},
	{"userctl import --on-conflict ", "fail skip update"},
	{"userctl import pe", "people.csv"},
	{"userctl list --ca pe", "people.csv"},
	{"userctl --context ", "dev prod"},
	{"userctl context use p", "prod"},
	{"userctl completion ", "bash zsh fish"},
	{"userctl list --output json x", "x"},
	{"userctl nothing x", "x"},
}

// shells are interactive shells in which ^X a inserts all candidates, ^X d prints the line between ^B and ^C, and ^U
// clears it.
var shells = map[string]struct {
	argv  []string
	setUp string
}{
	"bash": {
		[]string{"bash", "--norc", "--noprofile", "-i"},
		`source <(userctl completion bash); bind '"\C-xa": insert-completions'; bind -x '"\C-xd": printf "\2%s\3" "$READLINE_LINE"'`,
	},
	"zsh": {
		[]string{"zsh", "--no-rcs", "-i"},
		`autoload -U compinit; compinit -D; source <(userctl completion zsh); ` +
			`all() { _main_complete; compstate[insert]=all }; zle -C all complete-word all; bindkey '^Xa' all; ` +
			`line() { printf '\2%s\3' "$BUFFER" }; zle -N line; bindkey '^Xd' line; bindkey '^U' kill-whole-line`,
	},
}

func completionFolder(t *testing.T) (dir string, env []string) {
	t.Helper()
	dir = t.TempDir()
	servertest.WriteFile(t, dir, "people.csv", nil)
	config := servertest.WriteFile(t, t.TempDir(), "config.yaml", []byte("contexts: {prod: {server: []}, dev: {server: []}}"))
	_, env = program(t)
	return dir, append(env, "USERCTL_CONFIG="+config, "TERM=dumb", "HOME="+dir)
}

// The scripts complete lines that are typed on a terminal.
func TestCompletion(t *testing.T) {
	for name, shell := range shells {
		t.Run(name, func(t *testing.T) {
			requireProgram(t, name)
			dir, env := completionFolder(t)
			x := startTerminal(t, dir, env, shell.argv...)
			x.send(t, shell.setUp+"; PS1='rea''dy> '\n")
			x.wait(t, "ready> ") // before, the line discipline of the terminal edits the line
			for i, c := range completions {
				x.send(t, c.line+"\x18a\x18d\x15")
				got := x.between(t, i)
				want := c.line[:strings.LastIndexByte(c.line, ' ')+1] + c.want
				if !slices.Equal(sortedWords(got), sortedWords(want)) { // the shells have orders of their own
					t.Errorf("%q is completed as %q, want %q", c.line, got, want)
				}
			}
		})
	}
}

// between returns the text between the i-th ^B and ^C.
func (x *terminal) between(t *testing.T, i int) string {
	t.Helper()
	x.waitFor(t, func(text string) bool { return strings.Count(text, "\x03") > i })
	_, text, _ := strings.Cut(strings.Split(x.String(), "\x03")[i], "\x02")
	return text
}

// fish has a command that prints the candidates for a line.
func TestFishCompletion(t *testing.T) {
	requireProgram(t, "fish")
	dir, env := completionFolder(t)
	for _, c := range completions {
		if strings.HasSuffix(c.line, " x") {
			c.want = ""
		}
		command := exec.CommandContext(t.Context(), "fish", "--no-config", "-c",
			`userctl completion fish | source; complete --do-complete "$argv[1]"`, c.line)
		command.Dir, command.Env = dir, env
		out, err := command.Output()
		if err != nil {
			t.Fatal(err)
		}
		var words strings.Builder
		for line := range strings.Lines(string(out)) {
			word, _, _ := strings.Cut(line, "\t")
			words.WriteString(word + " ")
		}
		got, want := sortedWords(words.String()), sortedWords(c.want)
		if !slices.Equal(got, want) {
			t.Errorf("%q is completed as %q, want %q", c.line, got, want)
		}
	}
}

func sortedWords(text string) []string { return slices.Sorted(strings.FieldsSeq(text)) }

func requireProgram(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err == nil {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is not installed", name)
	}
	t.Skipf("%s is not installed", name)
}
