package transport_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/transport"
)

// tlsServer is a TLS server whose response is one line per value sent to next, by HTTP major
// version.
type tlsServer struct {
	dir  string
	addr string
	next map[int]chan string
	log  *logBuffer
}

func startTLS(t *testing.T, issued servertest.Issued, clientCA []byte) *tlsServer {
	t.Helper()
	s := &tlsServer{dir: t.TempDir(), next: map[int]chan string{1: make(chan string), 2: make(chan string)}, log: &logBuffer{}}
	log := slog.New(slog.NewTextHandler(s.log, nil))
	opts := transport.CertificatesOptions{Refresh: 5 * time.Millisecond, Logger: log}
	opts.Cert, opts.Key = issued.Write(t, s.dir)
	if clientCA != nil {
		ca := servertest.WriteFile(t, s.dir, "ca.pem", clientCA)
		authorities, err := auth.LoadAuthorities(auth.FileOptions{Path: ca, Refresh: opts.Refresh, Logger: log})
		if err != nil {
			t.Fatal(err)
		}
		opts.ClientCAs = authorities.Pool
		ctx, cancel := context.WithCancel(t.Context())
		var reading sync.WaitGroup
		reading.Go(func() { authorities.Run(ctx) })
		t.Cleanup(func() { cancel(); reading.Wait() })
	}
	certificates, err := transport.LoadCertificates(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto+"\n")
		for r.URL.Path == "/stream" {
			_ = http.NewResponseController(w).Flush()
			select {
			case line := <-s.next[r.ProtoMajor]:
				_, _ = io.WriteString(w, line+"\n")
			case <-r.Context().Done():
				return
			}
		}
	})
	server := transport.NewServer(guarded(t, handler), transport.ServerOptions{
		MaxConcurrentStreams: 10, Logger: slog.New(slog.DiscardHandler),
	})
	server.ConnContext = transport.ConnContext
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = listener.Addr().String()
	secure := transport.Listen(listener, transport.ListenOptions{StallTimeout: 10 * time.Second, TLS: certificates.Config()})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { certificates.Run(ctx) })
	running.Go(func() { _ = server.Serve(secure) })
	t.Cleanup(func() {
		cancel()
		_ = server.Close()
		running.Wait()
	})
	return s
}

// client returns a client with a connection of its own.
func (s *tlsServer) client(t *testing.T, config *tls.Config, http2 bool) *http.Client {
	t.Helper()
	var protocols http.Protocols
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	transport := &http.Transport{TLSClientConfig: config, Protocols: &protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (s *tlsServer) get(t *testing.T, client *http.Client, path string) (*http.Response, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.addr+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return client.Do(request)
}

// awaits connects until the result satisfies wanted.
func (s *tlsServer) awaits(t *testing.T, config *tls.Config, wanted func(*tls.ConnectionState, error) bool) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	for time.Now().Before(end) {
		client := s.client(t, config.Clone(), false)
		response, err := s.get(t, client, "/")
		var state *tls.ConnectionState
		if err == nil {
			state = response.TLS
			_ = response.Body.Close()
		}
		client.CloseIdleConnections()
		if wanted(state, err) {
			return
		}
	}
	t.Fatalf("new certificate not in use after 20 s:\n%s", s.log)
}

// New certificates apply to new connections; an open stream continues.
func TestCertificateReloadKeepsOpenStreams(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("stream", func(t *testing.T) {
		authority := servertest.NewAuthority(t)
		old, renewed := authority.Server(t), authority.Server(t)
		s := startTLS(t, old, nil)
		for _, http2 := range []bool{false, true} {
			response, err := s.get(t, s.client(t, authority.Trust(), http2), "/stream")
			if err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(response.Body)
			want := map[bool]string{false: "HTTP/1.1\n", true: "HTTP/2.0\n"}[http2]
			if got, err := lines.ReadString('\n'); err != nil || got != want {
				t.Fatalf("got %q, %v", got, err)
			}
			present, other := old, renewed
			if http2 {
				present, other = renewed, old
			}
			// Only the certificate is new, the key is not: the old pair stays in use.
			servertest.WriteFile(t, s.dir, "cert.pem", other.Cert)
			s.log.await(t, "previous certificate in use")
			s.awaits(t, authority.Trust(), shows(t, present))
			other.Write(t, s.dir)
			s.awaits(t, authority.Trust(), shows(t, other))
			s.log.reset()
			select {
			case s.next[response.ProtoMajor] <- "still here":
			case <-time.After(10 * time.Second):
				t.Fatal("stream ended by the reload")
			}
			if got, err := lines.ReadString('\n'); err != nil || got != "still here\n" {
				t.Errorf("line after the reload = %q, %v", got, err)
			}
			_ = response.Body.Close()
		}
	})
}

func shows(t *testing.T, issued servertest.Issued) func(*tls.ConnectionState, error) bool {
	want := issued.Pair(t).Certificate[0]
	return func(state *tls.ConnectionState, err error) bool {
		return err == nil && bytes.Equal(state.PeerCertificates[0].Raw, want)
	}
}

// Client certificates are optional. A certificate of a removed authority is rejected.
func TestClientAuthoritiesReload(t *testing.T) {
	authority, former, next := servertest.NewAuthority(t), servertest.NewAuthority(t), servertest.NewAuthority(t)
	s := startTLS(t, authority.Server(t), former.PEM)
	with := func(a *servertest.Authority) *tls.Config {
		config := authority.Trust()
		pair := a.Client(t, "spiffe://example.org/a").Pair(t)
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
		return config
	}
	accepted := func(_ *tls.ConnectionState, err error) bool { return err == nil }
	rejected := func(_ *tls.ConnectionState, err error) bool { return err != nil }
	one, other := with(former), with(next)
	s.awaits(t, one, accepted)
	s.awaits(t, other, rejected)
	s.awaits(t, authority.Trust(), accepted)
	servertest.WriteFile(t, s.dir, "ca.pem", next.PEM)
	s.awaits(t, other, accepted)
	s.awaits(t, one, rejected) // an earlier session does not help
}

func TestMinimumTLSVersion(t *testing.T) {
	authority := servertest.NewAuthority(t)
	s := startTLS(t, authority.Server(t), nil)
	for version, ok := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		config := authority.Trust()
		config.MinVersion, config.MaxVersion = version, version
		response, err := s.get(t, s.client(t, config, false), "/")
		if err == nil {
			_ = response.Body.Close()
		}
		if (err == nil) != ok {
			t.Errorf("%s: Get() = %v", tls.VersionName(version), err)
		}
	}
}

func TestLoadCertificatesInvalidFiles(t *testing.T) {
	t.Parallel()
	authority := servertest.NewAuthority(t)
	dir := t.TempDir()
	cert, key := authority.Server(t).Write(t, dir)
	other := servertest.WriteFile(t, dir, "other.pem", authority.Server(t).Key)
	empty := servertest.WriteFile(t, dir, "empty.pem", nil)
	for _, test := range []struct {
		opts transport.CertificatesOptions
		want string
	}{
		{transport.CertificatesOptions{Cert: cert + "x", Key: key}, "no such file"},
		{transport.CertificatesOptions{Cert: cert, Key: other}, "does not match"},
		{transport.CertificatesOptions{Cert: empty, Key: key}, "empty.pem"},
	} {
		test.opts.Logger = slog.New(slog.DiscardHandler)
		_, err := transport.LoadCertificates(t.Context(), test.opts)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("LoadCertificates() = %v, want %s", err, test.want)
		}
	}
}

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu      sync.Mutex
	b       bytes.Buffer
	written sync.Cond
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.written.L = &b.mu
	b.written.Broadcast()
	return b.b.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *logBuffer) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b.Reset()
}

// await waits for a text in the log.
func (b *logBuffer) await(t *testing.T, text string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.written.L = &b.mu
	late := time.AfterFunc(20*time.Second, b.written.Broadcast)
	defer late.Stop()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(b.b.String(), text); {
		if time.Now().After(end) {
			t.Fatalf("the log has no %q:\n%s", text, b.b.String())
		}
		b.written.Wait()
	}
}
