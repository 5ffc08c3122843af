//go:build unix

package main_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// getOverSocket makes a GET request over a Unix socket.
func getOverSocket(t *testing.T, path, url string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", path)
	}}}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	got, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = got.Body.Close() }()
	body, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	return got.StatusCode, string(body)
}

// socketProgram runs userd on a Unix socket. launch waits for the address of its admin
// listener.
func socketProgram(t *testing.T, path, dir string) *process {
	t.Helper()
	return launch(t, []string{build(t, ""), "--listen", "unix:" + path, "--admin-listen", "127.0.0.1:0", "--log-format", "text"}, dir, nil)
}

// A Unix socket accepts any Host header. Its file is removed at shutdown, and replaced at
// start if a kill left it.
func TestUnixSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "userd.sock")
	run := socketProgram(t, path, dir)
	run.output.await(t, "msg=listening", "addr=unix:"+path)
	if status, body := getOverSocket(t, path, "http://upstream_name/api/v1/users"); status != http.StatusOK {
		t.Errorf("GET = %d %s, want 200", status, body)
	}
	run.kill()
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("socket was removed by the kill: %v", err)
	}
	run = socketProgram(t, path, dir)
	if status, body := getOverSocket(t, path, "http://localhost/api/v1/users"); status != http.StatusOK {
		t.Errorf("GET after a kill = %d %s", status, body)
	}
	run.terminate(t)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket exists after shutdown: %v", err)
	}
}

func TestSIGHUPDrains(t *testing.T) {
	ignored := make(chan os.Signal, 1)
	signal.Notify(ignored, syscall.SIGHUP) // so that userd does not inherit that it is ignored, if the tests run under nohup
	defer signal.Stop(ignored)
	run := program{dir: t.TempDir()}.start(t)
	if err := run.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	select {
	case <-run.exited:
	case <-time.After(time.Minute):
		t.Fatalf("userd did not exit:\n%s", run.output)
	}
	if run.err != nil || !strings.Contains(run.output.all(), `msg="shutdown complete"`) {
		t.Errorf("exit status: %v\n%s", run.err, run.output)
	}
}

// SIGHUP is ignored under nohup.
func TestSIGHUPStaysIgnored(t *testing.T) {
	run := program{dir: t.TempDir(), wrap: []string{"sh", "-c", `trap "" HUP; exec "$0" "$@"`}}.start(t)
	if err := run.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	client := run.client(t, 1<<20)
	if _, err := client.CreateUser(within(t, hangTimeout), newUser("survivor", 1)); err != nil {
		t.Errorf("call after SIGHUP: %v", err)
	}
	run.terminate(t)
	if run.err != nil {
		t.Errorf("exit status: %v\n%s", run.err, run.output)
	}
}

// notifications is a fake service manager socket.
func notifications(t *testing.T) (path string, await func(want string)) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return path, func(want string) {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, 256)
		n, err := conn.Read(buffer)
		if err != nil || string(buffer[:n]) != want {
			t.Fatalf("notification = %q, %v; want %q", buffer[:n], err, want)
		}
	}
}

// activated starts the program with a listener passed as by systemd.
func activated(t *testing.T, listener interface{ File() (*os.File, error) }, env ...string) (*exec.Cmd, *strings.Builder) {
	t.Helper()
	file, err := listener.File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@"`, build(t, ""), "--admin-listen", "")
	cmd.Dir, cmd.ExtraFiles = t.TempDir(), []*os.File{file}
	cmd.Env = append(os.Environ(), env...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, &out
}

func TestSocketActivation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "userd.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	notify, await := notifications(t)
	cmd, out := activated(t, listener, "NOTIFY_SOCKET="+notify)
	await("READY=1")
	if status, body := getOverSocket(t, path, "http://localhost/api/v1/users"); status != http.StatusOK {
		t.Errorf("GET = %d %s, want 200", status, body)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	await("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Errorf("exit status: %v\n%s", err, out)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("socket of the service manager was removed: %v", err)
	}
}

// A passed socket on a non-loopback address needs authentication.
func TestSocketActivationNonLoopback(t *testing.T) {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4zero})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	cmd, out := activated(t, listener)
	if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "--insecure-no-auth") {
		t.Errorf("exit status: %v\n%s", err, out)
	}
}
