package main_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// memoryCgroup is a memory cgroup with a limit. The zero value is none, on a machine where the
// test must not create one; the peak of the resident memory is checked there all the same.
type memoryCgroup struct{ dir string }

const cgroupRoot = "/sys/fs/cgroup"

// newMemoryCgroup creates a cgroup, of version 1 or 2, which the end of the test removes.
func newMemoryCgroup(t *testing.T, limit int64) *memoryCgroup {
	t.Helper()
	name := fmt.Sprintf("userd-siege-%d-%d", os.Getpid(), time.Now().UnixNano())
	for _, version := range []struct {
		root   string
		limits map[string]string
	}{
		{filepath.Join(cgroupRoot, "memory"), map[string]string{"memory.limit_in_bytes": strconv.FormatInt(limit, 10)}},
		{cgroupRoot, map[string]string{"memory.max": strconv.FormatInt(limit, 10), "memory.swap.max": "0"}},
	} {
		c := &memoryCgroup{filepath.Join(version.root, name)}
		if err := c.create(version.limits); err != nil {
			t.Logf("no memory cgroup in %s: %v", version.root, err)
			continue
		}
		t.Cleanup(func() {
			if err := c.remove(); err != nil {
				t.Errorf("remove the cgroup: %v", err)
			}
		})
		return c
	}
	return &memoryCgroup{}
}

func (c *memoryCgroup) create(limits map[string]string) error {
	if _, err := os.Stat(filepath.Join(filepath.Dir(c.dir), "cgroup.procs")); err != nil {
		return err // it is not a cgroup file system
	}
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		return err
	}
	for file, limit := range limits {
		if err := os.WriteFile(filepath.Join(c.dir, file), []byte(limit), 0); err != nil {
			return errors.Join(err, os.Remove(c.dir))
		}
	}
	return nil
}

// remove waits for the kernel to notice that the processes have ended.
func (c *memoryCgroup) remove() error {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(10 * time.Second); ; <-ticker.C {
		err := os.Remove(c.dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) || time.Now().After(end) {
			return err
		}
	}
}

// wrap returns a command that starts another one in the cgroup.
func (c *memoryCgroup) wrap() []string {
	if c.dir == "" {
		return nil
	}
	return []string{"sh", "-c", `echo $$ >"$0/cgroup.procs" && exec "$@"`, c.dir}
}

var oomKillPattern = regexp.MustCompile(`(?m)^oom_kill (\d+)$`)

// kills returns how many processes the kernel killed in the cgroup.
func (c *memoryCgroup) kills(t *testing.T) int64 {
	t.Helper()
	for _, file := range []string{"memory.oom_control", "memory.events"} {
		text, err := os.ReadFile(filepath.Join(c.dir, file))
		if found := oomKillPattern.FindSubmatch(text); err == nil && found != nil {
			n, err := strconv.ParseInt(string(found[1]), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return 0
}
