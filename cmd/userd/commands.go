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

	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/telemetry"
)

// Exit statuses.
const (
	statusOK     = 0
	statusFailed = 1
	statusUsage  = 2
)

// console is the environment of a command.
type console struct {
	name     string // os.Args[0]
	out, err io.Writer
	exit     func(int) // called by --help
}

// commands defines the command line.
type commands struct {
	Store     string `default:"sqlite:userservice.db" help:"Store as sqlite:PATH, where the file is created if it does not exist, or postgres://USER@HOST/DATABASE."`
	LogLevel  string `default:"info" enum:"debug,info,warn,error" help:"Minimum log level: debug, info, warn or error."`
	LogFormat string `default:"" enum:",text,json" placeholder:"text|json" help:"Log format (default: text on a terminal, otherwise json)."`

	Serve   serveCommand   `cmd:"" default:"withargs" help:"Run the server (default command)."`
	Backup  backupCommand  `cmd:"" help:"Back up a SQLite store to a new file, also while a server uses it."`
	Restore restoreCommand `cmd:"" help:"Replace a SQLite store with a backup. No server may be using the store."`
	Check   checkCommand   `cmd:"" help:"Check the integrity of the store, also while a server uses it."`
	Migrate migrateCommand `cmd:"" help:"Move a store to another one, between SQLite and PostgreSQL. No server may be using either."`
	Health  healthCommand  `cmd:"" help:"Print whether the server is ready; the exit status is 1 if it is not."`
	Token   tokenCommand   `cmd:"" help:"Create a development key and a token, and print how to use them."`
	Version versionCommand `cmd:"" help:"Print the version."`

	ShowVersion kong.VersionFlag `name:"version" env:"-" help:"Print the version."`

	ignored []ignoredVariable
}

const description = `A user directory with a live activity feed, over gRPC, gRPC-Web, Connect and REST on one port.

Without arguments it serves on 127.0.0.1:8080 from userservice.db in the current directory; userd serve --help lists all flags. Each flag can also be set by an environment variable: --max-message-bytes is USERD_MAX_MESSAGE_BYTES.`

// Validate is called by kong after parsing.
func (c *commands) Validate() error {
	return server.ValidateStore(c.Store)
}

// run parses the arguments, runs the command and returns the exit status.
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
		all.printIgnored(to)
		_, _ = fmt.Fprintf(to.err, "userd: %v\nRun userd --help for usage.\n", err)
		return statusUsage
	}
	if command.Selected().Name != "serve" {
		all.printIgnored(to)
	}
	if err := command.Run(); err != nil {
		_, _ = fmt.Fprintf(to.err, "userd: %v\n", err)
		return statusFailed
	}
	return statusOK
}

// printIgnored prints the ignored environment variables of a command without a log.
func (c *commands) printIgnored(to console) {
	for _, v := range c.ignored {
		_, _ = fmt.Fprintf(to.err, "userd: environment variable ignored: %s\n", v)
	}
}

func (c *commands) logger(to console) (*slog.Logger, error) {
	log, err := telemetry.NewLogger(to.err, c.LogLevel, c.LogFormat)
	if err != nil {
		return nil, err
	}
	return slog.New(telemetry.Sanitize(log.Handler())), nil
}

// serveCommand is userd serve.
type serveCommand struct {
	server.Config `embed:""`
}

// Run serves until ctx is done.
func (c *serveCommand) Run(ctx context.Context, all *commands, to console) error {
	log, err := all.logger(to)
	if err != nil {
		return err
	}
	warnVulnerableRuntime(ctx, log, runtime.Version())
	for _, v := range all.ignored {
		log.WarnContext(ctx, "environment variable ignored", v.attrs()...)
	}
	fair.AddProcessors()
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
	indexing := &lateBar{to: to, unit: "users indexed"}
	opening := server.NewOpening(c.Config, sockets.admin, metrics, log)
	store, storage, err := server.OpenStore(ctx, server.StoreOptions{
		Address: all.Store, Replica: c.StoreReplica, TrustClock: c.TrustClock, Logger: log, Metrics: metrics,
		Indexing: func(done, total int) {
			extendStart()
			indexing.set(done, total)
			opening.Indexing(ctx, done, total)
		},
	})
	indexing.end()
	adminListener := opening.End()
	if err != nil {
		return unlessStopped(ctx, log, errors.Join(err, tracing.Shutdown(ctx)))
	}
	s, err := server.New(ctx, c.Config, server.Parts{
		Store: store, Storage: storage, Logger: log, Metrics: metrics, Tracing: tracing,
		Listener: sockets.public, AdminListener: adminListener,
	})
	if err != nil {
		_ = store.Close() // err is more important
		return unlessStopped(ctx, log, errors.Join(err, tracing.Shutdown(ctx)))
	}
	if telemetry.IsTerminal(to.out) {
		s.Welcome(to.out)
	}
	notifySystemd(ctx, log)
	defer runtime.KeepAlive(newBallast()) // after New, which sets the memory limit
	return s.Run(ctx)
}

// unlessStopped returns the error of a start, or nil if a signal has stopped it: the next start continues.
func unlessStopped(ctx context.Context, log *slog.Logger, err error) error {
	if ctx.Err() == nil || !errors.Is(err, ctx.Err()) && !errors.Is(err, context.Cause(ctx)) {
		return err
	}
	log.InfoContext(ctx, "stopped before the start was complete", "error", err)
	return nil
}

// trace sets up tracing and the global error handler and logger of OpenTelemetry.
func (c *serveCommand) trace(ctx context.Context, version string, log *slog.Logger, to console) (*telemetry.Tracing, error) {
	failed, sdkLog := telemetry.SDKLog(log) //nolint:contextcheck // the SDK logs without a context
	otel.SetErrorHandler(failed)
	otel.SetLogger(sdkLog)
	return telemetry.NewTracing(ctx, telemetry.TracingOptions{
		Service: "userd", Version: version, Instance: uuid.NewString(),
		TrustRemote: c.TrustTraceParent, Console: to.out, Logger: log,
	})
}
