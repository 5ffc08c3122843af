package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	_ "embed"

	"github.com/alecthomas/kong"
)

// The scripts call "userctl __complete WORD...", which prints the candidates for the last word.
var (
	//go:embed completion/userctl.bash
	bashCompletion string
	//go:embed completion/userctl.zsh
	zshCompletion string
	//go:embed completion/userctl.fish
	fishCompletion string
)

const completeCall = "__complete"

// completionCommand is userctl completion.
type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help is the detailed help.
func (*completionCommand) Help() string {
	return `bash: source <(userctl completion bash)
zsh:  source <(userctl completion zsh), after compinit
fish: userctl completion fish | source`
}

// Run prints the script.
func (c *completionCommand) Run(to console) error {
	script := map[string]string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}[c.Shell]
	_, err := io.WriteString(to.out, script)
	return err
}

// fileCandidates is printed if the word is the path of a file.
const fileCandidates = ":file"

// completer finds the candidates for the last of some words.
type completer struct {
	node       *kong.Node
	positional int
	flag       *kong.Flag // that needs a value; nil: none
	onlyArgs   bool       // after "--"
}

// printCandidates prints the candidates for the last word, each with its help behind a tab.
func printCandidates(w io.Writer, app *kong.Application, words []string) {
	if len(words) == 0 {
		return
	}
	c := &completer{node: app.Node}
	last := len(words) - 1
	for _, word := range words[:last] {
		c.next(word)
	}
	for _, candidate := range c.candidates(words[last]) {
		_, _ = fmt.Fprintln(w, candidate)
	}
}

// next handles a complete word. bash splits words at "=".
func (c *completer) next(word string) {
	switch {
	case c.flag != nil && word == "=":
	case c.flag != nil:
		c.flag = nil
	case c.onlyArgs || !strings.HasPrefix(word, "-"):
		c.argument(word)
	case word == "--":
		c.onlyArgs = true
	case strings.HasPrefix(word, "--"):
		name, _, hasValue := strings.Cut(word[2:], "=")
		if f := c.find(func(f *kong.Flag) bool { return f.Name == name }); f != nil && !f.IsBool() && !hasValue {
			c.flag = f
		}
	default:
		short := []rune(word)[1:]
		for i, r := range short {
			if f := c.find(func(f *kong.Flag) bool { return f.Short == r }); f != nil && !f.IsBool() {
				if i == len(short)-1 {
					c.flag = f
				}
				return // the rest is its value
			}
		}
	}
}

func (c *completer) argument(word string) {
	i := slices.IndexFunc(c.node.Children, func(n *kong.Node) bool { return n.Name == word })
	if i < 0 {
		c.positional++
		return
	}
	c.node, c.positional = c.node.Children[i], 0
}

func (c *completer) find(matches func(*kong.Flag) bool) *kong.Flag {
	for _, group := range c.node.AllFlags(true) {
		if i := slices.IndexFunc(group, matches); i >= 0 {
			return group[i]
		}
	}
	return nil
}

// candidates returns the candidates for a word.
func (c *completer) candidates(word string) []string {
	name, value, hasValue := strings.Cut(word, "=")
	switch {
	case c.flag != nil:
		return valuesOf(c.flag.Value, "", strings.TrimPrefix(word, "="))
	case c.onlyArgs || !strings.HasPrefix(word, "-"):
		return c.arguments(word)
	case hasValue:
		f := c.find(func(f *kong.Flag) bool { return "--"+f.Name == name })
		if f == nil {
			return nil
		}
		return valuesOf(f.Value, name+"=", value)
	}
	var found []string
	for _, group := range c.node.AllFlags(true) {
		for _, f := range group {
			if flag := "--" + f.Name; strings.HasPrefix(flag, word) {
				found = append(found, flag+"\t"+f.Help)
			}
		}
	}
	return found
}

func (c *completer) arguments(word string) []string {
	var found []string
	for _, child := range c.node.Children {
		if !child.Hidden && strings.HasPrefix(child.Name, word) {
			found = append(found, child.Name+"\t"+child.Help)
		}
	}
	args := c.node.Positional
	if len(args) == 0 {
		return found
	}
	i := c.positional
	if last := len(args) - 1; i > last && args[last].IsSlice() {
		i = last
	}
	if i < len(args) {
		found = append(found, valuesOf(args[i], "", word)...)
	}
	return found
}

// valuesOf returns the values of a flag or an argument with a prefix: those of its tag complete, or else of its enum.
func valuesOf(value *kong.Value, before, prefix string) []string {
	var values []string
	switch kind := value.Tag.Get("complete"); {
	case kind == "context":
		if file, err := openConfig(os.Getenv("USERCTL_CONFIG")); err == nil {
			values = slices.Sorted(maps.Keys(file.Contexts))
		}
	case kind != "":
		values = strings.Split(kind, ",")
	case value.Flag != nil && value.Flag.PlaceHolder == "FILE", value.Name == "file":
		return []string{fileCandidates}
	case value.Enum != "":
		values = value.EnumSlice()
	}
	var found []string
	for _, text := range values {
		if strings.HasPrefix(text, prefix) {
			found = append(found, before+text)
		}
	}
	return found
}
