package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"path/filepath"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// exportCommand is userctl export.
type exportCommand struct {
	File   string `arg:"" optional:"" help:"File to write; it is replaced when the export is complete (default: standard output)."`
	Format string `enum:"auto,csv,ndjson" default:"auto" placeholder:"csv|ndjson" help:"Format (default: that of the file name, else csv)."`
	Filter string `short:"f" help:"Filter (AIP-160). Default: all users that are not deleted."`
}

// exportColumns are the columns of an export as CSV.
var exportColumns = []string{"user_id", "username", "email", "status", "tags", "metadata", "created_at", "updated_at"}

// Run exports users, in the order of their ids.
func (c *exportCommand) Run(ctx context.Context, s *session) error {
	format := fileFormat(c.Format, c.File)
	if c.File == "" {
		_, err := c.write(ctx, s, format, s.console.out)
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(c.File), filepath.Base(c.File)+".*.tmp")
	if err != nil {
		return err
	}
	n, err := c.write(ctx, s, format, file)
	if err == nil {
		err = file.Sync()
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(file.Name(), c.File)
	}
	if err != nil {
		_ = os.Remove(file.Name())
		return err
	}
	_, err = fmt.Fprintf(s.err, "exported %d users to %s\n", n, c.File)
	return err
}

func (c *exportCommand) write(ctx context.Context, s *session, format string, w io.Writer) (int, error) {
	bar := newProgress(s.console, "users", -1)
	defer bar.end()
	add, flush := newRowWriter(w, format)
	n := 0
	for u, err := range s.client.Users(ctx, &userv1.ListUsersRequest{Filter: c.Filter, OrderBy: "user_id", PageSize: maxPage}) {
		if err != nil {
			return n, err
		}
		if err := add(u); err != nil {
			return n, err
		}
		n++
		bar.set(n)
	}
	return n, flush()
}

// newRowWriter returns functions that write a user and flush.
func newRowWriter(w io.Writer, format string) (add func(*userv1.User) error, flush func() error) {
	if format == "ndjson" {
		encoder := &output{out: w, format: "ndjson"}
		return func(u *userv1.User) error { return encoder.encode(u) }, func() error { return nil }
	}
	table := csv.NewWriter(w)
	_ = table.Write(exportColumns) // flush has the error
	return func(u *userv1.User) error {
			return table.Write([]string{
				idText(u.GetUserId()), u.GetUsername(), u.GetEmail(), statusText(u.GetStatus()), formatTags(u.GetTags()), mapText(u.GetMetadata()),
				timeText(u.GetCreatedAt()), timeText(u.GetUpdatedAt()),
			})
		}, func() error {
			table.Flush()
			return table.Error()
		}
}

// fileFormat returns the format of a file of users.
func fileFormat(format, file string) string {
	if format != "auto" {
		return format
	}
	switch filepath.Ext(file) {
	case ".ndjson", ".jsonl":
		return "ndjson"
	default:
		return "csv"
	}
}
