package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"

	"github.com/alecthomas/kong"
	"github.com/google/uuid"
	"go.opentelemetry.io/otel"

	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/telemetry"
)

// The statuses that userd ends with.
const (
	statusOK     = 0
	statusFailed = 1
	statusUsage  = 2
)

// console is where a command writes to.
type console struct {
	name     string // by which the program was called
	out, err io.Writer
	exit     func(int) // for --help, which ends the program
}

// commands is the command line.
type commands struct {
	Store     string `default:"sqlite:userservice.db" placeholder:"sqlite:PATH" help:"Where the users are. A file that is missing is created."`
	LogLevel  string `default:"info" enum:"debug,info,warn,error" help:"Least level that is logged: debug, info, warn or error."`
	LogFormat string `default:"" enum:",text,json" placeholder:"text|json" help:"Form of the log. Default: text on a terminal, json elsewhere."`

	Serve   serveCommand   `cmd:"" default:"withargs" help:"Serve. This is what userd does when no command is named."`
	Backup  backupCommand  `cmd:"" help:"Write a copy of the store to a new file. A server may be using it meanwhile."`
	Restore restoreCommand `cmd:"" help:"Put a backup in the place of the store. No server may be using the store."`
	Check   checkCommand   `cmd:"" help:"Check that the store is sound, and say what is not. A server may be using it meanwhile."`
	Token   tokenCommand   `cmd:"" help:"Make a development key and a token, and say how to try them."`
	Version versionCommand `cmd:"" help:"Say which version this is."`

	ShowVersion kong.VersionFlag `name:"version" env:"-" help:"Print the version."`

	ignored []ignoredVariable
}

const description = `A user directory with a live activity feed, over gRPC, gRPC-Web, Connect and REST on one port.

Without arguments it serves on 127.0.0.1:8080 from userservice.db in the current folder; userd serve --help lists what can be set. Every flag can be set by a variable of the environment, too: --max-message-bytes is USERD_MAX_MESSAGE_BYTES.`

// Validate says which setting cannot be.
func (c *commands) Validate() error {
	_, err := server.StorePath(c.Store)
	return err
}

// run parses the arguments, carries the command out and returns the status.
func run(ctx context.Context, args []string, to console) int {
	var all commands
	parser, err := kong.New(&all,
		kong.Name("userd"), kong.Description(description), kong.DefaultEnvars("USERD"), server.Flags(),
		kong.Writers(to.out, to.err), kong.Exit(to.exit),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true}),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(&all), kong.Bind(to),
		kong.Vars{"version": versionLine()},
	)
	if err != nil {
		_, _ = fmt.Fprintf(to.err, "userd: %v\n", err)
		return statusFailed
	}
	all.ignored = checkEnvironment(parser.Model)
	if len(args) > 0 && args[0] == "help" {
		args = append(args[1:], "--help")
	}
	command, err := parser.Parse(args)
	if err != nil {
		all.nameIgnored(to)
		_, _ = fmt.Fprintf(to.err, "userd: %v\nuserd --help says what there is.\n", err)
		return statusUsage
	}
	if command.Selected().Name != "serve" {
		all.nameIgnored(to)
	}
	if err := command.Run(); err != nil {
		_, _ = fmt.Fprintf(to.err, "userd: %v\n", err)
		return statusFailed
	}
	return statusOK
}

// nameIgnored prints the variables without effect, where there is no log.
func (c *commands) nameIgnored(to console) {
	for _, v := range c.ignored {
		_, _ = fmt.Fprintf(to.err, "userd: environment variable ignored: %s\n", v)
	}
}

func (c *commands) logger(to console) (*slog.Logger, error) {
	log, err := telemetry.NewLogger(to.err, c.LogLevel, c.LogFormat)
	if err != nil {
		return nil, err
	}
	return slog.New(telemetry.Plain(log.Handler())), nil
}

// serveCommand is userd serve.
type serveCommand struct {
	server.Config `embed:""`
}

// Run serves until the context ends.
func (c *serveCommand) Run(ctx context.Context, all *commands, to console) error {
	log, err := all.logger(to)
	if err != nil {
		return err
	}
	warnOfRuntime(ctx, log, runtime.Version())
	for _, v := range all.ignored {
		log.WarnContext(ctx, "environment variable ignored", v.attrs()...)
	}
	sockets, err := activatedSockets()
	if err != nil {
		return err
	}
	if sockets.public != nil {
		c.Listen = server.Address(sockets.public)
	}
	if sockets.admin != nil {
		c.AdminListen = server.Address(sockets.admin)
	}
	build := telemetry.Build{Version: version(), Revision: revision()}
	metrics := telemetry.NewMetrics(build)
	tracing, err := c.trace(ctx, build.Version, log, to)
	if err != nil {
		return err
	}
	store, storage, err := server.OpenStore(ctx, all.Store, c.TrustClock, log, metrics)
	if err != nil {
		return errors.Join(err, tracing.Shutdown(ctx))
	}
	s, err := server.New(ctx, c.Config, server.Parts{
		Store: store, Storage: storage, Logger: log, Metrics: metrics, Tracing: tracing,
		Listener: sockets.public, AdminListener: sockets.admin,
	})
	if err != nil {
		_ = store.Close() // nothing was written; the error to tell is the other one
		return errors.Join(err, tracing.Shutdown(ctx))
	}
	// The log goes to the other stream. Whoever asked for JSON feeds both to a program.
	if all.LogFormat != telemetry.FormatJSON {
		s.Welcome(to.out)
	}
	notifySystemd(ctx, log)
	defer runtime.KeepAlive(reserveHeap()) // New has told the runtime of the memory limit
	return s.Run(ctx)
}

// trace sets up tracing, and with it what the SDK keeps for the whole process.
func (c *serveCommand) trace(ctx context.Context, version string, log *slog.Logger, to console) (*telemetry.Tracing, error) {
	failed, sdkLog := telemetry.SDKLog(log) //nolint:contextcheck // what the SDK says belongs to no call
	otel.SetErrorHandler(failed)
	otel.SetLogger(sdkLog)
	return telemetry.SetUpTracing(ctx, telemetry.TracingOptions{
		Service: "userd", Version: version, Instance: uuid.NewString(),
		TrustRemote: c.TrustTraceParent, Console: to.out, Logger: log,
	})
}
