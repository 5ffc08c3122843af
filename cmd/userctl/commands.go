package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/alecthomas/kong"
)

// console is the environment of a command.
type console struct {
	in                                   io.Reader
	out, err                             io.Writer
	inTerminal, outTerminal, errTerminal bool
	width                                int       // of the terminal of out; 0: unknown
	exit                                 func(int) // called by --help
}

// commands defines the command line.
type commands struct {
	settings `embed:"" group:"Connection"`
	Context  string `group:"Connection" env:"USERCTL_CONTEXT" placeholder:"NAME" complete:"context" help:"Context of the configuration file (default: the current one, if no server is set). As a flag, it replaces the variables."`
	Config   string `env:"USERCTL_CONFIG" placeholder:"FILE" help:"Configuration file (default: userctl/config.yaml in XDG_CONFIG_HOME or ~/.config)."`
	Verbose  bool   `short:"v" help:"Log connections and retries to standard error."`
	Output   string `short:"o" env:"USERCTL_OUTPUT" default:"table" enum:"table,json,ndjson,yaml" placeholder:"table|json|ndjson|yaml" help:"Output format: table, json, ndjson or yaml (default: table). With json, a stream has one object per line."`
	NoPager  bool   `env:"USERCTL_NO_PAGER" help:"Do not show long lists in a pager (PAGER, default: less)."`

	Get        getCommand        `cmd:"" help:"Show users."`
	List       listCommand       `cmd:"" help:"List or search users."`
	Create     createCommand     `cmd:"" help:"Create a user."`
	Update     updateCommand     `cmd:"" help:"Change fields of a user."`
	Delete     deleteCommand     `cmd:"" help:"Delete users. They can be undeleted until they are purged."`
	Undelete   undeleteCommand   `cmd:"" help:"Restore deleted users."`
	Purge      purgeCommand      `cmd:"" help:"Erase deleted users, without a way back."`
	Record     recordCommand     `cmd:"" help:"Add an activity of an application to the log."`
	Activities activitiesCommand `cmd:"" help:"Show the activity log of a user or of all users."`
	Status     statusCommand     `cmd:"" help:"Show, set or follow statuses."`
	Watch      watchCommand      `cmd:"" help:"Show users, then their changes until Ctrl-C."`
	Import     importCommand     `cmd:"" help:"Create users from a CSV or NDJSON file."`
	Export     exportCommand     `cmd:"" help:"Write users to a CSV or NDJSON file."`
	Health     healthCommand     `cmd:"" help:"Show whether the servers are serving."`
	Contexts   contextCommand    `cmd:"" name:"context" help:"Keep servers and credentials under names, in a configuration file."`
	Completion completionCommand `cmd:"" help:"Print the completion script of a shell."`
}

const description = `The command line of the user service.

A user is given by id, e-mail address or username. The flags of the connection can also be set by environment variables: --server is USERCTL_SERVER. Flags are used before variables, and variables before the current context.

Exit statuses:

  0    success
  1    failure
  2    usage error or invalid value
  3    not found
  4    conflict: a name is taken, or the etag or the state of the user does not match
  5    missing or insufficient credentials
  6    server unavailable or timed out
  130  interrupted`

func newParser(ctx context.Context, all *commands, to console) (*kong.Kong, error) {
	return kong.New(all,
		kong.Name("userctl"), kong.Description(description),
		kong.Writers(to.out, to.err), kong.Exit(to.exit),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
}

// run parses the arguments, runs the command and returns the exit status.
func run(ctx context.Context, args []string, to console) int {
	var all commands
	parser, err := newParser(ctx, &all, to)
	if err != nil {
		_, _ = fmt.Fprintf(to.err, "userctl: %v\n", err)
		return statusFailed
	}
	if len(args) > 0 && args[0] == "help" {
		args = append(args[1:], "--help")
	}
	if len(args) > 0 && args[0] == completeCall {
		printCandidates(to.out, parser.Model, args[1:])
		return statusOK
	}
	command, err := parser.Parse(args)
	if err != nil {
		_, _ = fmt.Fprintf(to.err, "userctl: %v\nRun userctl --help for usage.\n", err)
		return statusUsage
	}
	var s *session
	bound := errors.Join(
		command.BindSingletonProvider(func() (_ *session, err error) { //nolint:contextcheck // the client lives until close
			s, err = newSession(command, &all, to)
			return s, err
		}),
		command.BindSingletonProvider(func() (*configFile, error) { return openConfig(all.Config) }))
	if err = bound; err == nil {
		err = command.Run(&all, to, newOutput(to, all.Output))
	}
	if s != nil {
		err = s.close(err)
	}
	printError(to.err, err)
	return exitStatus(err)
}
