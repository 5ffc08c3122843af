package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/store/postgres"
	"github.com/yourorg/userservice/service/store/sqlite"
	"github.com/yourorg/userservice/service/telemetry"
)

// backupCommand is userd backup.
type backupCommand struct {
	Path string `arg:"" help:"File to write; it must not exist."`
}

// Run writes the backup.
func (c *backupCommand) Run(ctx context.Context, all *commands, to console) error {
	if server.IsPostgres(all.Store) {
		return errors.New("userd backup is for SQLite: back up a PostgreSQL database with pg_dump, or with a base backup and its write-ahead log")
	}
	return withStore(ctx, all, func(store *sqlite.File) error {
		bar := newBar(to, "pages")
		if err := store.Backup(ctx, c.Path, bar.set); err != nil {
			return bar.end(err)
		}
		_, err := fmt.Fprintf(to.out, "wrote %s\n", c.Path)
		return bar.end(err)
	})
}

// restoreCommand is userd restore.
type restoreCommand struct {
	Path       string `arg:"" help:"Backup to restore."`
	Force      bool   `env:"-" help:"Replace an existing store; its files are renamed."`
	Incomplete bool   `env:"-" help:"Accept a backup whose write-ahead log is missing."`
}

// Run restores the backup.
func (c *restoreCommand) Run(ctx context.Context, all *commands, to console) error {
	if server.IsPostgres(all.Store) {
		return errors.New("userd restore is for SQLite: restore a PostgreSQL database with pg_restore or from its base backup, and before a node starts " +
			"run UPDATE meta SET epoch = '': clients must notice that rows after the backup are lost")
	}
	path, err := server.StorePath(all.Store)
	if err != nil {
		return err
	}
	bar := newBar(to, "pages, rows and users")
	var renamed []string
	err = sqlite.Restore(ctx, c.Path, path, sqlite.RestoreOptions{
		Force: c.Force, Incomplete: c.Incomplete, Now: time.Now(), Progress: bar.set,
		Renamed: func(oldPath, newPath string) {
			renamed = append(renamed, fmt.Sprintf("renamed %s to %s\n", oldPath, newPath))
		},
	})
	err = bar.end(err)
	_, failed := fmt.Fprint(to.out, strings.Join(renamed, "")) // also after an error
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	_, err = fmt.Fprintf(to.out, "restored %s to %s\n", c.Path, path)
	return err
}

// checkCommand is userd check.
type checkCommand struct{}

// Run checks the store. It fails if there are findings.
func (checkCommand) Run(ctx context.Context, all *commands, to console) error {
	if server.IsPostgres(all.Store) {
		return checkStore(to, redacted(all.Store), func(progress func(done, total int)) ([]string, error) {
			return postgres.Check(ctx, all.Store, progress)
		})
	}
	return withStore(ctx, all, func(store *sqlite.File) error {
		return checkStore(to, all.Store, func(progress func(done, total int)) ([]string, error) { return store.Check(ctx, progress) })
	})
}

// checkStore prints the findings of a check.
func checkStore(to console, name string, check func(progress func(done, total int)) ([]string, error)) error {
	bar := newBar(to, "rows and users")
	findings, err := check(bar.set)
	err = bar.end(err)
	for _, finding := range findings {
		if _, failed := fmt.Fprintln(to.out, finding); failed != nil {
			return failed
		}
	}
	if err != nil {
		return err
	}
	if len(findings) > 0 {
		return fmt.Errorf("%s is damaged", name)
	}
	_, err = fmt.Fprintf(to.out, "%s is intact\n", name)
	return err
}

// withStore opens an existing store, which a server may be using, and calls job.
func withStore(ctx context.Context, all *commands, job func(*sqlite.File) error) error {
	path, err := server.StorePath(all.Store)
	if err != nil {
		return err
	}
	if err := mustExist(path); err != nil {
		return err
	}
	store, err := sqlite.OpenFile(ctx, path)
	if err != nil {
		return err
	}
	return job(store)
}

// bar is a progress bar, shown on a terminal only.
type bar struct{ shown *progressbar.ProgressBar }

func newBar(to console, unit string) *bar {
	return &bar{progressbar.NewOptions(-1,
		progressbar.OptionSetWriter(to.err),
		progressbar.OptionSetVisibility(telemetry.IsTerminal(to.err)),
		progressbar.OptionSetDescription(unit),
		progressbar.OptionShowCount(),
		progressbar.OptionShowIts(),
		progressbar.OptionClearOnFinish(),
	)}
}

func (b *bar) set(done, total int) {
	b.shown.ChangeMax(total)
	_ = b.shown.Set(done) // display errors do not matter
}

func (b *bar) end(err error) error {
	_ = b.shown.Finish()
	return err
}

// lateBar is a bar that is shown when it is first set.
type lateBar struct {
	to   console
	unit string
	bar  *bar
}

func (b *lateBar) set(done, total int) {
	if b.bar == nil {
		b.bar = newBar(b.to, b.unit)
	}
	b.bar.set(done, total)
}

func (b *lateBar) end() {
	if b.bar != nil {
		_ = b.bar.end(nil)
	}
}

func mustExist(path string) error {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("store %s does not exist", path)
	}
	return err
}
