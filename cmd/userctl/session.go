package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/yourorg/userservice/client"
)

// defaultServer is used without --server.
const defaultServer = "http://127.0.0.1:8080"

// connection defines the flags of the connection.
type connection struct {
	Server    []string `env:"USERCTL_SERVER" short:"s" placeholder:"URL" help:"Servers of one store, comma-separated: http://, https://, dns+https://HOST:PORT or unix:/PATH (default: http://127.0.0.1:8080)."`
	Token     string   `env:"USERCTL_TOKEN" placeholder:"TOKEN" help:"Bearer token. Other users of this machine can see flags; prefer the environment variable."`
	TokenFile string   `env:"USERCTL_TOKEN_FILE" placeholder:"FILE" help:"File with the bearer token, read again each minute."`
	CA        string   `env:"USERCTL_CA" name:"ca" placeholder:"FILE" help:"CA bundle (PEM) of the servers (default: that of the system)."`
	Cert      string   `env:"USERCTL_CERT" placeholder:"FILE" help:"Client certificate (PEM)."`
	Key       string   `env:"USERCTL_KEY" placeholder:"FILE" help:"Private key (PEM) of the client certificate."`
	Verbose   bool     `short:"v" help:"Log connections and retries to standard error."`
}

// options returns the options of the client.
func (c *connection) options(to console) ([]client.Option, error) {
	var options []client.Option
	switch {
	case c.Token != "" && c.TokenFile != "":
		return nil, newUsageError("--token and --token-file cannot be used together")
	case c.Token != "":
		options = append(options, client.WithTokens(client.StaticToken(c.Token)))
	case c.TokenFile != "":
		options = append(options, client.WithTokens(client.TokenFile(c.TokenFile)))
	}
	if c.CA != "" || c.Cert != "" || c.Key != "" {
		settings, err := client.LoadTLS(c.CA, c.Cert, c.Key)
		if err != nil {
			return nil, newUsageError("load certificates: %v", err)
		}
		options = append(options, client.WithTLS(settings))
	}
	logger := slog.New(&interruptions{to.err})
	if c.Verbose {
		logger = slog.New(slog.NewTextHandler(to.err, nil))
	}
	return append(options, client.WithLogger(logger)), nil
}

// session has what commands share: the console, the client and the output.
type session struct {
	console
	*output

	client  *client.Client
	servers []string
	options []client.Option
	epoch   *epoch
	conns   *connections
	lines   *bufio.Reader // of in, for questions
}

func newSession(all *commands, to console) (*session, error) {
	options, err := all.options(to)
	if err != nil {
		return nil, err
	}
	servers := all.Server
	if len(servers) == 0 {
		servers = []string{defaultServer}
	}
	seen, conns := new(epoch), new(connections)
	options = append(options, client.WithDialer(conns.dial))
	c, err := client.New(servers, append(options, client.WithInterceptors(seen))...)
	if err != nil {
		return nil, newUsageError("--server: %v", err)
	}
	return &session{
		console: to, output: newOutput(to.out, all.Output), client: c, servers: servers, options: options, epoch: seen, conns: conns, lines: bufio.NewReader(to.in),
	}, nil
}

func (s *session) close() {
	_ = s.client.Close()
	s.conns.close()
}

// confirm asks before a destructive command. Without a terminal, --yes is required.
func (s *session) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	if !s.inTerminal {
		return newUsageError("%s needs --yes, because standard input is not a terminal", question)
	}
	if _, err := fmt.Fprintf(s.err, "%s? [y/N] ", printable(question)); err != nil {
		return err
	}
	line, err := s.lines.ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the confirmation: %w", err)
	}
	return newUsageError("not confirmed, nothing was changed")
}

// interruptions is a log handler that prints interrupted streams only.
type interruptions struct{ w io.Writer }

// Enabled implements slog.Handler.
func (i *interruptions) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo
}

// Handle implements slog.Handler.
func (i *interruptions) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "stream interrupted" {
		return nil
	}
	var cause string
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "error" {
			cause = a.Value.String()
		}
		return true
	})
	_, err := fmt.Fprintf(i.w, "userctl: connection lost, retrying: %s\n", printable(cause))
	return err
}

// WithAttrs implements slog.Handler.
func (i *interruptions) WithAttrs([]slog.Attr) slog.Handler { return i }

// WithGroup implements slog.Handler.
func (i *interruptions) WithGroup(string) slog.Handler { return i }
