package http2_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/yourorg/userservice/service/http2"
)

// engine is an HTTP/2 server under test. net/http is the oracle.
type engine struct {
	name      string
	configure func(*http.Server, http2.Options)
}

var (
	own     = engine{"http2", func(hs *http.Server, o http2.Options) { http2.Configure(hs, o) }}
	std     = engine{"net/http", func(*http.Server, http2.Options) {}}
	engines = []engine{own, std}
)

const testTimeout = 10 * time.Second

// testServer is a server on an in-memory or TCP listener.
type testServer struct {
	t      testing.TB
	http   *http.Server
	listen net.Listener
	secure bool
	own    bool // of this package
	log    *lockedBuffer
	serve  chan error
}

type serverOption func(*http.Server, *http2.Options)

// start starts a server and checks for leaked goroutines at the end.
func (e engine) start(t testing.TB, secure bool, h http.HandlerFunc, opts ...serverOption) *testServer {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	others := goleak.IgnoreCurrent()
	s := e.startOn(t, l, secure, h, opts...)
	t.Cleanup(func() {
		s.close()
		if err := goleak.Find(others); err != nil && e.name == own.name { // net/http waits a second after GOAWAY
			t.Errorf("goroutines after the end: %v", err)
		}
	})
	return s
}

func (e engine) startOn(t testing.TB, l net.Listener, secure bool, h http.HandlerFunc, opts ...serverOption) *testServer {
	s := &testServer{t: t, listen: l, secure: secure, own: e.name == own.name, log: new(lockedBuffer), serve: make(chan error, 1)}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	s.http = &http.Server{
		Handler: h, Protocols: &protocols, MaxHeaderBytes: 32 << 10, ReadHeaderTimeout: testTimeout,
		ErrorLog: slog.NewLogLogger(slog.NewTextHandler(s.log, nil), slog.LevelWarn),
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: 100, MaxReceiveBufferPerStream: 64 << 10, MaxReceiveBufferPerConnection: 256 << 10},
	}
	options := http2.Options{
		Frames: http2.FrameLimits{PerSecond: 100, ResetBurst: 1000, MinPingInterval: 5 * time.Second}, MaxHeaderFields: 100,
	}
	if secure {
		s.http.TLSConfig = &tls.Config{Certificates: []tls.Certificate{testCertificate()}, MinVersion: tls.VersionTLS12}
	}
	for _, opt := range opts {
		opt(s.http, &options)
	}
	e.configure(s.http, options)
	go func() {
		if secure {
			s.serve <- s.http.ServeTLS(l, "", "")
			return
		}
		s.serve <- s.http.Serve(l)
	}()
	return s
}

func (s *testServer) close() {
	_ = s.http.Close() // the connections of the test are closed in any case
	if err := <-s.serve; !errors.Is(err, http.ErrServerClosed) {
		s.t.Errorf("Serve() = %v, want %v", err, http.ErrServerClosed)
	}
}

var testCertificate = sync.OnceValue(func() tls.Certificate {
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	return s.TLS.Certificates[0]
})

// client returns an HTTP client that speaks HTTP/2 only.
func (s *testServer) client() *http.Client {
	var protocols http.Protocols
	protocols.SetHTTP2(s.secure)
	protocols.SetUnencryptedHTTP2(!s.secure)
	transport := &http.Transport{
		Protocols:       &protocols,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", s.listen.Addr().String())
		},
	}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: testTimeout}
}

func (s *testServer) url(path string) string {
	if s.secure {
		return "https://example.com" + path
	}
	return "http://example.com" + path
}

// dial opens a connection and exchanges the preface and SETTINGS.
func (s *testServer) dial() *peer {
	s.t.Helper()
	c, err := new(net.Dialer).DialContext(s.t.Context(), "tcp", s.listen.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	if s.secure {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	}
	p := newPeer(s.t, c)
	p.own = s.own
	p.preface()
	return p
}

// peer is a client that sends single frames.
type peer struct {
	own  bool // the server is of this package
	t    testing.TB
	conn net.Conn
	fr   *xhttp2.Framer
	wbuf bytes.Buffer // frames to send, see flush
	enc  *hpack.Encoder
	hbuf bytes.Buffer

	mu      sync.Mutex
	changed sync.Cond
	got     []frame
	err     error // of reading
}

// frame is a received frame.
type frame struct {
	xhttp2.FrameHeader
	fields  map[string]string // HEADERS
	data    []byte            // DATA, and the debug data of GOAWAY
	code    xhttp2.ErrCode    // RST_STREAM and GOAWAY
	last    uint32            // GOAWAY
	window  uint32            // WINDOW_UPDATE
	ping    [8]byte
	setting map[xhttp2.SettingID]uint32
}

func newPeer(t testing.TB, c net.Conn) *peer {
	p := &peer{t: t, conn: c}
	p.changed.L = &p.mu
	p.fr = xhttp2.NewFramer(&p.wbuf, c)
	p.fr.AllowIllegalWrites = true
	p.enc = hpack.NewEncoder(&p.hbuf)
	t.Cleanup(func() { _ = c.Close() })
	return p
}

func (p *peer) preface() {
	p.t.Helper()
	p.wbuf.WriteString(xhttp2.ClientPreface)
	p.check(p.fr.WriteSettings())
	p.flush()
	go p.read()
	p.await("SETTINGS", func(f frame) bool { return f.Type == xhttp2.FrameSettings && !f.Flags.Has(xhttp2.FlagSettingsAck) })
	p.check(p.fr.WriteSettingsAck())
	p.flush()
}

func (p *peer) check(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// flush sends the written frames. It returns false if the server has closed the connection.
func (p *peer) flush() bool {
	_ = p.conn.SetWriteDeadline(time.Now().Add(testTimeout))
	_, err := p.conn.Write(p.wbuf.Bytes())
	p.wbuf.Reset()
	return err == nil
}

func (p *peer) read() {
	reader := xhttp2.NewFramer(nil, p.conn)
	reader.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		f, err := reader.ReadFrame()
		p.mu.Lock()
		if err != nil {
			p.err = err
			p.changed.Broadcast()
			p.mu.Unlock()
			return
		}
		got := frame{FrameHeader: f.Header()}
		switch f := f.(type) {
		case *xhttp2.MetaHeadersFrame:
			got.fields = make(map[string]string)
			for _, field := range f.Fields {
				got.fields[field.Name] = field.Value
			}
		case *xhttp2.DataFrame:
			got.data = bytes.Clone(f.Data())
		case *xhttp2.RSTStreamFrame:
			got.code = f.ErrCode
		case *xhttp2.GoAwayFrame:
			got.code, got.last, got.data = f.ErrCode, f.LastStreamID, bytes.Clone(f.DebugData())
		case *xhttp2.PingFrame:
			got.ping = f.Data
		case *xhttp2.WindowUpdateFrame:
			got.window = f.Increment
		case *xhttp2.SettingsFrame:
			got.setting = make(map[xhttp2.SettingID]uint32)
			_ = f.ForeachSetting(func(s xhttp2.Setting) error { got.setting[s.ID] = s.Val; return nil })
		}
		p.got = append(p.got, got)
		p.changed.Broadcast()
		p.mu.Unlock()
	}
}

// find waits for a frame. It returns false when the connection ends before.
func (p *peer) find(match func(frame) bool) (found frame, ok bool) {
	timedOut := false
	timer := time.AfterFunc(testTimeout, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		timedOut = true
		p.changed.Broadcast()
	})
	defer timer.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := 0; ; i++ {
		for i == len(p.got) {
			if timedOut {
				p.t.Errorf("timeout; received %v", p.got)
			}
			if p.err != nil || timedOut {
				return found, false
			}
			p.changed.Wait()
		}
		if match(p.got[i]) {
			return p.got[i], true
		}
	}
}

// await is find for a frame that must be received.
func (p *peer) await(name string, match func(frame) bool) frame {
	p.t.Helper()
	f, ok := p.find(match)
	if !ok {
		p.t.Fatalf("%s not received; received %v, then %v", name, p.got, p.err)
	}
	return f
}

// headers writes HEADERS of a request with further fields, given as names and values.
func (p *peer) headers(stream uint32, end bool, fields ...string) {
	p.t.Helper()
	p.check(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{
		StreamID: stream, EndStream: end, EndHeaders: true, BlockFragment: p.block(append(request("GET", "/"), fields...)...),
	}))
}

func request(method, path string) []string {
	return []string{":method", method, ":scheme", "http", ":path", path, ":authority", "example.com"}
}

func (p *peer) block(fields ...string) []byte {
	p.hbuf.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = p.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(p.hbuf.Bytes())
}

// response waits for the response on a stream: its status, body and trailers. A reset is a status of "reset" and its code.
func (p *peer) response(stream uint32) (status, body string, trailers map[string]string) {
	p.t.Helper()
	var data strings.Builder
	_, ok := p.find(func(f frame) bool {
		if f.Type == xhttp2.FrameGoAway && f.code != xhttp2.ErrCodeNo {
			status = "closed"
			return true
		}
		if f.StreamID != stream {
			return false
		}
		switch f.Type { //nolint:exhaustive // others are not part of a response
		case xhttp2.FrameHeaders:
			switch {
			case f.fields[":status"] == "":
				trailers = f.fields
			case f.fields[":status"] >= "200":
				status = f.fields[":status"]
			}
		case xhttp2.FrameData:
			data.Write(f.data)
		case xhttp2.FrameRSTStream:
			if f.code != xhttp2.ErrCodeNo {
				status = "reset " + f.code.String()
			}
			return true
		}
		return (f.Type == xhttp2.FrameHeaders || f.Type == xhttp2.FrameData) && f.Flags.Has(xhttp2.FlagDataEndStream)
	})
	if !ok {
		status = "closed"
	}
	return status, data.String(), trailers
}

// goAway waits for the end of the connection, and returns the code and debug data of its last GOAWAY.
func (p *peer) goAway() (code xhttp2.ErrCode, debug string) {
	p.t.Helper()
	code = 1 << 31
	p.find(func(f frame) bool {
		if f.Type == xhttp2.FrameGoAway {
			code, debug = f.code, string(f.data)
		}
		return false
	})
	return code, debug
}

// lockedBuffer is the log of a server.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// echo responds with the body of the request.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body)
}

// each runs a test with the server over h2c and TLS, and with net/http, the reference, over h2c.
func each(t *testing.T, test func(t *testing.T, e engine, secure bool)) {
	t.Run(own.name+" TLS", func(t *testing.T) { test(t, own, true) })
	for _, e := range engines {
		t.Run(e.name+" h2c", func(t *testing.T) { test(t, e, false) })
	}
}

var errTest = errors.New("test")
