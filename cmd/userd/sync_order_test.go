package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// A kill does not lose data in the page cache, so this test traces system calls: between the
// write of a user name to the write-ahead log and the write of the response with it to the
// socket there must be a sync of the log.
func TestResponseIsSentAfterSync(t *testing.T) {
	t.Parallel()
	if err := watchSyncs(t, program{dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
}

// The sync test must detect a store that does not sync.
func TestSyncTestDetectsInjectedFault(t *testing.T) {
	t.Parallel()
	err := watchSyncs(t, program{dir: t.TempDir(), fault: "sync-off"})
	if err == nil {
		t.Fatal("responses without a sync were not detected")
	}
	t.Logf("found: %v", err)
}

func watchSyncs(t *testing.T, p program) error {
	const creates = 50
	trace := filepath.Join(t.TempDir(), "trace")
	p.wrap = []string{
		requireStrace(t), "-f", "-y", "-s", "5000", "-o", trace,
		"-e", "trace=fsync,fdatasync,pwrite64,write,writev,sendto,sendmsg",
	}
	run := p.start(t)
	client := run.client(t, 1<<20)
	ctx := within(t, hangTimeout)
	for i := range creates {
		name := syncedName(i)
		if _, err := client.CreateUser(ctx, &userv1.CreateUserRequest{Username: name, Email: name + "@example.org"}); err != nil {
			return err
		}
	}
	run.terminate(t)
	lines, err := os.ReadFile(trace)
	if err != nil {
		return err
	}
	calls := strings.Split(string(lines), "\n")
	for i := range creates {
		if err := syncedBeforeResponse(calls, syncedName(i)); err != nil {
			return err
		}
	}
	return nil
}

func syncedName(i int) string { return fmt.Sprintf("synced-%06d", i) }

var (
	walWrite   = regexp.MustCompile(`pwrite64\(\d+<[^>]*-wal>`)
	walSync    = regexp.MustCompile(`^(\d+) +(?:fsync|fdatasync)\(\d+<[^>]*-wal>(\)| <unfinished)`)
	syncEnd    = regexp.MustCompile(`^(\d+) +<\.\.\. (?:fsync|fdatasync) resumed>.*= 0`)
	socketSend = regexp.MustCompile(`(?:write|writev|sendto|sendmsg)\(\d+<(?:socket|TCP)`)
)

// syncedBeforeResponse checks the traced system calls in order.
func syncedBeforeResponse(calls []string, name string) error {
	written, synced := false, false
	begun := make(map[string]bool) // threads in a sync that started after the write
	for _, call := range calls {
		switch {
		case walWrite.MatchString(call) && strings.Contains(call, name):
			written = true
		case written && walSync.MatchString(call):
			m := walSync.FindStringSubmatch(call)
			if m[2] == ")" {
				synced = synced || strings.HasSuffix(call, "= 0")
			} else {
				begun[m[1]] = true
			}
		case syncEnd.MatchString(call):
			synced = synced || begun[syncEnd.FindStringSubmatch(call)[1]]
		case socketSend.MatchString(call) && strings.Contains(call, name):
			switch {
			case !written:
				return fmt.Errorf("response with %s was sent before its write", name)
			case !synced:
				return fmt.Errorf("response with %s was sent before its sync", name)
			}
			return nil
		}
	}
	return fmt.Errorf("no response with %s found (written: %t, synced: %t)", name, written, synced)
}

// requireStrace fails the test without strace instead of skipping it.
func requireStrace(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("this test needs strace; on Debian: apt-get install strace")
	}
	return path
}
