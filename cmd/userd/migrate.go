package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"

	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/store/move"
	"github.com/yourorg/userservice/service/store/postgres"
	"github.com/yourorg/userservice/service/store/sqlite"
)

// migrateCommand is userd migrate.
type migrateCommand struct {
	From string `required:"" placeholder:"STORE" help:"Store to move, in the form of --store. No server may be using it. It keeps its data, and gets a new epoch if it is served again."`
	To   string `required:"" placeholder:"STORE" help:"Empty store, created if it does not exist. Repeat the command to continue an interrupted move."`
}

// Validate is called by kong after parsing.
func (c *migrateCommand) Validate() error {
	for flag, address := range map[string]string{"--from": c.From, "--to": c.To} {
		if err := server.ValidateStore(address); err != nil {
			return fmt.Errorf("%s: %w", flag, err)
		}
	}
	if c.From == c.To || sameFile(c.From, c.To) {
		return errors.New("--to: must differ from --from")
	}
	return nil
}

// sameFile reports whether two addresses are those of one SQLite store.
func sameFile(a, b string) bool {
	var files [2]os.FileInfo
	for i, address := range []string{a, b} {
		path, err := server.StorePath(address)
		if err != nil {
			return false
		}
		if files[i], err = os.Stat(path); err != nil {
			return false
		}
	}
	return os.SameFile(files[0], files[1])
}

// Run moves the store.
func (c *migrateCommand) Run(ctx context.Context, all *commands, to console) (err error) {
	log, err := all.logger(to)
	if err != nil {
		return err
	}
	source, err := openSource(ctx, c.From, log)
	if err != nil {
		return fmt.Errorf("--from: %w", err)
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	target, err := openTarget(ctx, c.To, log)
	if err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	stages := &stageBar{to: to}
	rows, err := move.Run(ctx, source, target, move.Options{Progress: stages.set})
	stages.end()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(to.out, "moved %s to %s and compared both: %d users, %d log rows, %d stored results\n",
		redacted(c.From), redacted(c.To), rows[move.Users], rows[move.Log], rows[move.Requests])
	return err
}

func openSource(ctx context.Context, address string, log *slog.Logger) (move.Source, error) {
	if server.IsPostgres(address) {
		return postgres.OpenSource(ctx, postgres.MoveOptions{URL: address, Logger: log})
	}
	path, err := server.StorePath(address)
	if err != nil {
		return nil, err
	}
	if err := mustExist(path); err != nil {
		return nil, err
	}
	return sqlite.OpenSource(ctx, path)
}

func openTarget(ctx context.Context, address string, log *slog.Logger) (move.Target, error) {
	if server.IsPostgres(address) {
		return postgres.OpenTarget(ctx, postgres.MoveOptions{URL: address, Logger: log})
	}
	path, err := server.StorePath(address)
	if err != nil {
		return nil, err
	}
	return sqlite.OpenTarget(ctx, path, log)
}

// redacted returns an address without its password.
func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil || !server.IsPostgres(address) {
		return address
	}
	return u.Redacted()
}

// stageBar is a bar for each of several stages.
type stageBar struct {
	to    console
	stage string
	bar   *bar
}

func (b *stageBar) set(stage string, done, total int) {
	if stage != b.stage {
		b.end()
		b.stage, b.bar = stage, newBar(b.to, stage)
	}
	b.bar.set(done, total)
}

func (b *stageBar) end() {
	if b.bar != nil {
		_ = b.bar.end(nil)
	}
}
