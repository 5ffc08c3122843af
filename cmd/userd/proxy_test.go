//go:build interop || deploy

package main_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/servertest"
)

// startNginx starts nginx with the content of its http block.
func startNginx(t *testing.T, port, config string) {
	t.Helper()
	dir := t.TempDir()
	around := "daemon off;\npid %[1]s/pid;\nerror_log stderr;\n%[2]sevents {}\nhttp {\naccess_log off;\nclient_body_temp_path %[1]s/a;\nproxy_temp_path %[1]s/b;\n" +
		"fastcgi_temp_path %[1]s/c;\nuwsgi_temp_path %[1]s/d;\nscgi_temp_path %[1]s/e;\n%[3]s\n}\n"
	user := ""
	if os.Getuid() == 0 {
		user = "user root;\n" // for access to the test directories
	}
	path := servertest.WriteFile(t, dir, "nginx.conf", fmt.Appendf(nil, around, dir, user, config))
	startProxy(t, port, "nginx", "-p", dir, "-e", "stderr", "-c", path)
}

// startProxy starts a program and returns when it accepts connections.
func startProxy(t *testing.T, port string, argv ...string) {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // it is ended below
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s is required: %v", argv[0], err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-exited:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-exited
		}
		if t.Failed() {
			t.Logf("%s:\n%s", argv[0], out.String())
		}
	})
	for end := time.Now().Add(20 * time.Second); ; {
		conn, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
		if err == nil {
			_ = conn.Close()
			return
		}
		select {
		case err := <-exited:
			t.Fatalf("%s exited: %v\n%s", argv[0], err, out.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not accept connections: %v", argv[0], err)
		}
	}
}
