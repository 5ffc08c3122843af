//go:build deploy

package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/servertest"
)

// Litestream copies a store in use. The copy has all users and rows, and after userd restore a new epoch.
func TestLitestream(t *testing.T) {
	if _, err := exec.LookPath("litestream"); err != nil {
		t.Skip("litestream is not installed: go install github.com/benbjohnson/litestream/cmd/litestream@v0.3.13")
	}
	ctx := within(t, 3*time.Minute)
	p := program{dir: t.TempDir()}
	text, err := os.ReadFile(deployFolder + "litestream/litestream.yml")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	replica := "file://" + folder
	config := servertest.WriteFile(t, t.TempDir(), "litestream.yml", []byte(strings.NewReplacer(
		"/var/lib/userd/userservice.db", filepath.Join(p.dir, databaseFile), "s3://backups.example.org/userd", replica).Replace(string(text))))
	run := p.start(t)
	client := run.client(t, 1<<20)
	importUsers(t, client, 300)
	replicate := exec.Command("litestream", "replicate", "-config", config) //nolint:noctx // interrupted below
	var out strings.Builder
	replicate.Stdout, replicate.Stderr = &out, &out
	if err := replicate.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { t.Logf("litestream replicate:\n%s", out.String()) }()
	for copied := 0; copied == 0; { // the first copy begins within a second
		files, err := filepath.Glob(filepath.Join(folder, "generations", "*", "snapshots", "*"))
		if err != nil || ctx.Err() != nil {
			t.Fatal("Litestream copied nothing: ", err, ctx.Err())
		}
		copied = len(files)
	}
	for range 20 {
		importUsers(t, client, 300)
	}
	want, epoch := userIDs(t, client), epochOf(ctx, t, run)
	run.terminate(t)
	if err := replicate.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = replicate.Wait() // 0.3.13 fails in its last checkpoint, after it has copied everything

	copied := filepath.Join(t.TempDir(), "copy.db")
	command(t, ".", "litestream", "restore", "-o", copied, replica)
	restored := program{dir: t.TempDir()}
	restored.mustRun(ctx, t, "restore", copied)
	restored.mustRun(ctx, t, "check")
	run = restored.start(t)
	if got := userIDs(t, run.client(t, 1<<20)); !slices.Equal(got, want) {
		t.Errorf("the restored store has %d users, want the %d users of the store", len(got), len(want))
	}
	if got := epochOf(ctx, t, run); got == epoch || got == "" {
		t.Errorf("epoch = %q, want another one than %q", got, epoch)
	}
}
