package filewatch_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/yourorg/userservice/service/filewatch"
)

// A change is read within the interval, an invalid one keeps the previous value, and a failure is
// reported once a minute.
func TestRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	synctest.Test(t, func(t *testing.T) {
		changed, failed := 0, 0
		f, err := filewatch.Load(filewatch.Options[string]{
			Paths: []string{path},
			Parse: func(contents [][]byte) (string, error) {
				if text := string(contents[0]); text != "invalid" {
					return text, nil
				}
				return "", errors.New("planted")
			},
			Changed: func(context.Context) { changed++ },
			Failed: func(_ context.Context, err error, _ time.Time) {
				failed++
				if !strings.Contains(err.Error(), path) {
					t.Errorf("error = %v, want the path", err)
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		go f.Run(ctx)
		began := time.Now()
		for _, step := range []struct {
			text            string
			wait            time.Duration
			want            string
			changed, failed int
			fresh           bool
		}{
			{"one", 6 * time.Second, "one", 0, 0, true},
			{"two", 6 * time.Second, "two", 1, 0, true},
			{"invalid", 10 * time.Minute, "two", 1, 10, false},
			{"two", 6 * time.Second, "two", 1, 10, true},
		} {
			write(step.text)
			time.Sleep(step.wait)
			synctest.Wait()
			got, readAt := f.Get()
			if fresh := time.Since(readAt) < 6*time.Second; got != step.want || changed != step.changed || failed != step.failed || fresh != step.fresh {
				t.Errorf("%s after %v: Get() = %s, fresh %v, with %d changes and %d failures, want %+v",
					step.text, time.Since(began), got, fresh, changed, failed, step)
			}
		}
	})
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	large, pipe := filepath.Join(dir, "large"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.WriteFile(large, make([]byte, 1<<20+1), 0o600), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		large: "larger than 1048576 bytes", pipe: "not a regular file", dir: "not a regular file", filepath.Join(dir, "none"): "no such file",
	} {
		if _, err := filewatch.Read(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Read(%s) error = %v, want %s", path, err, want)
		}
	}
}
