package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Hints are printed on terminals only. A shutdown logs two lines at level info.
func TestOutputWithoutTerminal(t *testing.T) {
	t.Parallel()
	run := program{dir: t.TempDir()}.start(t)
	run.terminate(t)
	text := run.output.all()
	if strings.Contains(text, "curl") {
		t.Errorf("hints were printed without a terminal:\n%s", text)
	}
	_, shutdown, found := strings.Cut(text, `level=INFO msg="shutting down"`)
	lines := strings.Split(shutdown, "\n")
	if !found || len(lines) != 2 || !strings.Contains(lines[1], `level=INFO msg="shutdown complete"`) {
		t.Errorf("the shutdown logged %d lines, want 2:\n%s", len(lines), text)
	}
}

func TestHintsOnTerminal(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "userd.sock")
	for listen, want := range map[string]string{
		"127.0.0.1:0":    "grpcurl -plaintext 127.0.0.1:",
		"unix:" + socket: "curl --unix-socket " + socket + " http://localhost/api/v1/users",
	} {
		master, slave := openTerminal(t)
		cmd := exec.CommandContext(t.Context(), build(t, ""), "--listen", listen, "--admin-listen", "off")
		cmd.Dir, cmd.Stdout = t.TempDir(), slave
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		if err := master.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for buffer := make([]byte, 4096); !strings.Contains(text.String(), want); {
			n, err := master.Read(buffer)
			text.Write(buffer[:n])
			if err != nil {
				t.Fatalf("--listen %s: the terminal shows %q, want %q: %v", listen, text.String(), want, err)
			}
		}
	}
}

// openTerminal opens a pseudoterminal.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("no pseudoterminals: %v", err)
	}
	t.Cleanup(func() { _ = master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatalf("unlock the pseudoterminal: %v", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatalf("number of the pseudoterminal: %v", err)
	}
	if slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slave.Close() })
	return master, slave
}
