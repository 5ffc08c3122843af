package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/alecthomas/kong"
	"google.golang.org/protobuf/types/known/structpb"
)

// contextCommand is userctl context.
type contextCommand struct {
	List   contextListCommand   `cmd:"" help:"List the contexts. The current one is marked."`
	Show   contextShowCommand   `cmd:"" help:"Show a context, without its token."`
	Use    contextUseCommand    `cmd:"" help:"Make a context the current one."`
	Set    contextSetCommand    `cmd:"" help:"Add a context, or change settings of it, with the flags of the connection. The first one becomes the current one."`
	Delete contextDeleteCommand `cmd:"" help:"Delete a context."`
}

// contextListCommand is userctl context list.
type contextListCommand struct{}

// Run lists contexts.
func (contextListCommand) Run(o *output, file *configFile) error {
	rows := newList(o, func(m *structpb.Struct) []string {
		return []string{map[bool]string{true: "*"}[m.GetFields()["current"].GetBoolValue()], contextText(m, "name"), contextText(m, "server")}
	}, "CURRENT", "NAME", "SERVER")
	for _, name := range slices.Sorted(maps.Keys(file.Contexts)) {
		if err := rows.add(file.message(name)); err != nil {
			return err
		}
	}
	return rows.end()
}

// contextShowCommand is userctl context show.
type contextShowCommand struct {
	Name string `arg:"" optional:"" complete:"context" help:"Name (default: the current context)."`
}

// Run shows a context.
func (c *contextShowCommand) Run(o *output, file *configFile) error {
	name := c.Name
	if name == "" {
		if name = file.Current; name == "" {
			return newUsageError("no context is chosen; choose one with userctl context use")
		}
	}
	if _, err := file.context(name); err != nil {
		return err
	}
	m := file.message(name)
	var fields []field
	for _, key := range []string{"name", "server", "token", "token_file", "ca", "cert", "key"} {
		fields = append(fields, field{key, contextText(m, key)})
	}
	return o.one(m, fields)
}

// message returns a context without its token.
func (f *configFile) message(name string) *structpb.Struct {
	c := f.Contexts[name]
	m := &structpb.Struct{Fields: map[string]*structpb.Value{"current": structpb.NewBoolValue(name == f.Current)}}
	token := ""
	if c.Token != "" {
		token = "(hidden)"
	}
	for key, value := range map[string]string{
		"name": name, "server": strings.Join(c.Server, ","), "token": token, "token_file": c.TokenFile, "ca": c.CA, "cert": c.Cert, "key": c.Key,
	} {
		if value != "" {
			m.Fields[key] = structpb.NewStringValue(value)
		}
	}
	return m
}

func contextText(m *structpb.Struct, key string) string { return m.GetFields()[key].GetStringValue() }

// contextUseCommand is userctl context use.
type contextUseCommand struct {
	Name string `arg:"" complete:"context" help:"Name of the context."`
}

// Run changes the current context.
func (c *contextUseCommand) Run(to console, file *configFile) error {
	if _, err := file.context(c.Name); err != nil {
		return err
	}
	file.Current = c.Name
	return file.change(to, "switched to context %q", c.Name)
}

// contextSetCommand is userctl context set.
type contextSetCommand struct {
	Name string `arg:"" complete:"context" help:"Name of the context."`
}

// Run adds or changes a context. Variables are ignored.
func (c *contextSetCommand) Run(command *kong.Context, all *commands, to console, file *configFile) error {
	if c.Name == "" || strings.ContainsFunc(c.Name, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return newUsageError("name of a context: must have no spaces")
	}
	ignoreVariables(command)
	set := all.settings
	for _, path := range set.files() {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = absolute
	}
	before, existed := file.Contexts[c.Name]
	set.addMissing(before)
	if len(set.Server) == 0 {
		return newUsageError("a new context needs --server")
	}
	if err := set.validate(); err != nil {
		return err
	}
	file.Contexts[c.Name] = set
	switch {
	case existed:
		return file.change(to, "context %q changed", c.Name)
	case len(file.Contexts) == 1:
		file.Current = c.Name
		return file.change(to, "context %q added, it is the current one", c.Name)
	default:
		return file.change(to, "context %q added", c.Name)
	}
}

// contextDeleteCommand is userctl context delete.
type contextDeleteCommand struct {
	Name string `arg:"" complete:"context" help:"Name of the context."`
}

// Run deletes a context.
func (c *contextDeleteCommand) Run(to console, file *configFile) error {
	if _, err := file.context(c.Name); err != nil {
		return err
	}
	delete(file.Contexts, c.Name)
	if file.Current == c.Name {
		file.Current = ""
		return file.change(to, "context %q deleted; no context is chosen now, choose one with userctl context use", c.Name)
	}
	return file.change(to, "context %q deleted", c.Name)
}

// change saves the file and says what has changed.
func (f *configFile) change(to console, format string, args ...any) error {
	if err := f.save(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(to.out, format+"\n", args...)
	return err
}
