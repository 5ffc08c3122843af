package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"go.yaml.in/yaml/v3"
)

// configFile is the configuration file.
type configFile struct {
	Current  string              `yaml:"current_context,omitempty"`
	Contexts map[string]settings `yaml:"contexts"`

	path    string
	missing bool
}

// errNoFolder is the cause if a user has no folder for configuration.
var errNoFolder = errors.New("no folder for the configuration file, set --config")

// configPath returns the path of the configuration file of the user.
func configPath() (string, error) {
	folder, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNoFolder, err)
	}
	return filepath.Join(folder, "userctl", "config.yaml"), nil
}

// openConfig reads the configuration file. A file that does not exist is empty.
func openConfig(path string) (file *configFile, err error) {
	if path == "" {
		if path, err = configPath(); err != nil {
			return nil, err
		}
	}
	file = &configFile{path: path}
	text, err := os.ReadFile(path) //nolint:gosec // the user chooses the file
	if file.missing = errors.Is(err, fs.ErrNotExist); err != nil && !file.missing {
		return nil, err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(file); err != nil && !errors.Is(err, io.EOF) {
		return nil, newUsageError("configuration file %s: %v", path, err)
	}
	if file.Contexts == nil {
		file.Contexts = make(map[string]settings)
	}
	for name, c := range file.Contexts {
		for _, file := range c.files() {
			if *file != "" && !filepath.IsAbs(*file) {
				*file = filepath.Join(filepath.Dir(path), *file)
			}
		}
		file.Contexts[name] = c
	}
	return file, nil
}

// context returns the settings of a context.
func (f *configFile) context(name string) (settings, error) {
	c, ok := f.Contexts[name]
	if !ok {
		return settings{}, notFoundError{fmt.Sprintf("no context is named %q in %s", name, f.path)}
	}
	return c, nil
}

// exposed reports whether other users of the machine can read tokens of the file.
func (f *configFile) exposed() bool {
	info, err := os.Stat(f.path)
	if err != nil || runtime.GOOS == "windows" || info.Mode().Perm()&0o077 == 0 {
		return false
	}
	for _, c := range f.Contexts {
		if c.Token != "" {
			return true
		}
	}
	return false
}

// save replaces the file, or the file that it links to. Other users cannot read it.
func (f *configFile) save() error {
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := errors.Join(encoder.Encode(f), encoder.Close()); err != nil {
		return err
	}
	path := f.path
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return writeFile(path, text.Bytes())
}
