package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/alecthomas/kong"

	"github.com/yourorg/userservice/client"
)

// defaultServer is used if no server is set.
const defaultServer = "http://127.0.0.1:8080"

// settings are the servers and the credentials of a connection, from flags, variables or a context.
type settings struct {
	Server    []string `yaml:"server,flow" env:"USERCTL_SERVER" short:"s" placeholder:"URL" help:"Servers of one store, comma-separated: http://, https://, dns+https://HOST:PORT or unix:/PATH (default: http://127.0.0.1:8080)."`
	Token     string   `yaml:"token,omitempty" env:"USERCTL_TOKEN" placeholder:"TOKEN" help:"Bearer token. Other users of this machine can see flags; prefer the environment variable."`
	TokenFile string   `yaml:"token_file,omitempty" env:"USERCTL_TOKEN_FILE" placeholder:"FILE" help:"File with the bearer token, read again each minute."`
	CA        string   `yaml:"ca,omitempty" env:"USERCTL_CA" name:"ca" placeholder:"FILE" help:"CA bundle (PEM) of the servers (default: that of the system)."`
	Cert      string   `yaml:"cert,omitempty" env:"USERCTL_CERT" placeholder:"FILE" help:"Client certificate (PEM)."`
	Key       string   `yaml:"key,omitempty" env:"USERCTL_KEY" placeholder:"FILE" help:"Private key (PEM) of the client certificate."`
}

// settingsGroup is the group of the flags of settings.
const settingsGroup = "Connection"

// files returns the settings that are paths.
func (s *settings) files() []*string { return []*string{&s.TokenFile, &s.CA, &s.Cert, &s.Key} }

// addMissing adds the settings of other that are not set. A token and its file are one setting, and a certificate and
// its key.
func (s *settings) addMissing(other settings) {
	if len(s.Server) == 0 {
		s.Server = other.Server
	}
	if s.Token == "" && s.TokenFile == "" {
		s.Token, s.TokenFile = other.Token, other.TokenFile
	}
	if s.CA == "" {
		s.CA = other.CA
	}
	if s.Cert == "" && s.Key == "" {
		s.Cert, s.Key = other.Cert, other.Key
	}
}

// validate checks the servers and the combination of credentials.
func (s *settings) validate() error {
	for _, server := range s.Server {
		if _, err := client.NewTransport(server); err != nil {
			return newUsageError("--server: %v", err)
		}
	}
	_, err := s.options()
	return err
}

// options returns the options of the client.
func (s *settings) options() ([]client.Option, error) {
	var options []client.Option
	switch {
	case s.Token != "" && s.TokenFile != "":
		return nil, newUsageError("--token and --token-file cannot be used together")
	case s.Token != "":
		options = append(options, client.WithTokens(client.StaticToken(s.Token)))
	case s.TokenFile != "":
		options = append(options, client.WithTokens(client.TokenFile(s.TokenFile)))
	}
	if s.CA != "" || s.Cert != "" || s.Key != "" {
		config, err := client.LoadTLS(s.CA, s.Cert, s.Key)
		if err != nil {
			return nil, newUsageError("load certificates: %v", err)
		}
		options = append(options, client.WithTLS(config))
	}
	return options, nil
}

// flagsOf returns the names of the flags on the command line.
func flagsOf(command *kong.Context) map[string]bool {
	given := make(map[string]bool)
	for _, part := range command.Path {
		if part.Flag != nil {
			given[part.Flag.Name] = true
		}
	}
	return given
}

// ignoreVariables resets the settings that are not from flags.
func ignoreVariables(command *kong.Context) {
	given := flagsOf(command)
	for _, flag := range command.Model.Flags {
		if flag.Group != nil && flag.Group.Key == settingsGroup && !given[flag.Name] {
			flag.Target.SetZero()
		}
	}
}

// useContext adds the settings of a context: of --context, which replaces all variables, or else, if no server is set,
// of USERCTL_CONTEXT or the current one. So the credentials of a context reach its servers only.
func (all *commands) useContext(command *kong.Context, warnings io.Writer) error {
	switch {
	case flagsOf(command)["context"]:
		ignoreVariables(command)
	case len(all.Server) > 0:
		return nil
	}
	file, err := openConfig(all.Config)
	if errors.Is(err, errNoFolder) && all.Context == "" {
		return nil
	}
	if err != nil {
		return err
	}
	if all.Config != "" && file.missing {
		return newUsageError("--config: there is no file %s", file.path)
	}
	name := all.Context
	if name == "" {
		name = file.Current
	}
	if name == "" {
		return nil
	}
	selected, err := file.context(name)
	if err != nil {
		return err
	}
	all.addMissing(selected)
	if file.exposed() {
		_, _ = fmt.Fprintf(warnings, "userctl: other users can read the token in %[1]s; run chmod 600 %[1]s\n", file.path)
	}
	return nil
}
