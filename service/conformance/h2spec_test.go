package main

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
)

// The server passes at least as many h2spec cases as net/http alone.
func TestH2spec(t *testing.T) {
	program := build(t, "github.com/summerwind/h2spec/cmd/h2spec")
	authority := servertest.NewAuthority(t)
	cert, key := authority.Server(t).Write(t, t.TempDir())
	for name, secure := range map[string]bool{"h2c": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			s := servertest.Start(t, servertest.Config(func(c *server.Config) {
				if secure {
					c.TLSCert, c.TLSKey = cert, key
				}
			}))
			got := h2spec(t, program, s.Addr(), secure)
			want := h2spec(t, program, startBare(t, secure, cert, key), secure)
			t.Logf("passed: %d, bare net/http: %d", got, want)
			if got < want {
				t.Errorf("h2spec cases passed = %d, want at least %d as with net/http", got, want)
			}
		})
	}
}

// h2spec runs h2spec and returns the number of passed cases.
func h2spec(t *testing.T, program, address string, secure bool) int {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"--host", host, "--port", port, "--timeout", "3", "--path", "/"}
	if secure {
		args = append(args, "--tls", "--insecure")
	}
	command := exec.CommandContext(t.Context(), program, args...)
	out, _ := command.CombinedOutput() // exits with 1 if a case fails
	summary := regexp.MustCompile(`(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed`).FindSubmatch(out)
	if summary == nil {
		t.Fatalf("h2spec printed no summary:\n%s", tail(out))
	}
	for _, failed := range regexp.MustCompile(`(?m)^ *× .*$`).FindAll(out, -1) {
		t.Logf("%s fails:%s", address, failed)
	}
	passed, err := strconv.Atoi(string(summary[2]))
	if err != nil {
		t.Fatal(err)
	}
	return passed
}

// startBare starts a net/http server and returns its address.
func startBare(t *testing.T, secure bool, cert, key string) string {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(secure)
	protocols.SetUnencryptedHTTP2(!secure)
	bare := &http.Server{
		Protocols: &protocols, ErrorLog: log.New(io.Discard, "", 0), TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, "a page of a few bytes\n")
		}),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if secure {
			_ = bare.ServeTLS(listener, cert, key)
		} else {
			_ = bare.Serve(listener)
		}
	}()
	t.Cleanup(func() {
		_ = bare.Close()
		<-done
	})
	return listener.Addr().String()
}
