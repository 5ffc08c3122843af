//go:build interop

package main_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/auth/devtoken"
	"github.com/yourorg/userservice/service/servertest"
)

// front is a target: the address that clients call, and the server behind it.
type front struct {
	url     string
	token   string      // bearer token; "": no authentication
	ca      string      // CA file; "": no TLS
	pages   chan string // free localhost ports of allowed origins, one per client
	backend *process
	from    string // local address of the client; "": any
}

// environment returns the environment of a client; done releases its port.
func (f front) environment() (variables []string, done func()) {
	variables = []string{"USERD_URL=" + f.url, "USERD_TOKEN=" + f.token, "USERD_CA=" + f.ca}
	if f.pages == nil {
		return variables, func() {}
	}
	page := <-f.pages
	return append(variables, "USERD_PAGE_PORT="+page), func() { f.pages <- page }
}

// pagePorts is the maximum number of concurrent browser clients of a server.
const pagePorts = 3

// newTargets starts the servers and proxies.
func newTargets(t *testing.T) map[string]front {
	t.Helper()
	b := &builder{t: t, authority: servertest.NewAuthority(t)}
	b.ca = servertest.WriteFile(t, t.TempDir(), "ca.pem", b.authority.PEM)
	b.login()
	behind := []string{"--trusted-proxy", "127.0.0.1"}
	token := b.serve(b.asking, behind...)
	limited := b.serve(b.asking, "--max-requests-per-second", "20", "--max-request-burst", "20", "--trusted-proxy", "127.0.0.1")
	open := b.serve(nil)
	targets := map[string]front{
		"open": open, "token": token, "limited": limited,
		"nginx": b.nginx("nginx", token), "nginx to limited": b.nginx("nginx", limited),
		"nginx with its defaults":      b.nginx("nginx defaults", b.serve(nil, append(behind, "--allow-host", "userd")...)),
		"nginx with an unallowed name": b.nginx("nginx defaults", open),
		"nginx to a socket":            b.nginx("nginx", b.serveSocket()),
		"haproxy":                      b.haproxy(token),
		"caddy":                        b.caddy(token),
		"Go's ReverseProxy":            b.reverseProxy(token),
		"empty responses":              b.emptyResponses(),
	}
	return targets
}

type builder struct {
	t         *testing.T
	authority *servertest.Authority
	ca        string
	token     string
	asking    []string // flags of a server with authentication
}

// login creates a token and the flags of servers that accept it.
func (b *builder) login() {
	token, keys, err := devtoken.New(b.t.TempDir(), "interop", permissions(), time.Hour)
	if err != nil {
		b.t.Fatal(err)
	}
	b.token = token
	b.asking = []string{"--jwt-jwks", keys, "--jwt-issuer", devtoken.Issuer, "--jwt-audience", devtoken.Audience}
}

func permissions() []string {
	var all []string
	for _, p := range auth.AllPermissions().List() {
		all = append(all, string(p))
	}
	return all
}

// serve starts a server that allows origins on localhost ports.
func (b *builder) serve(asking []string, flags ...string) front {
	f := front{pages: make(chan string, pagePorts)}
	if asking != nil {
		f.token = b.token
	}
	flags = append(append(flags, asking...), "--log-level", "debug")
	for range pagePorts {
		page := freePort(b.t)
		flags = append(flags, "--cors-origin", "http://localhost:"+page)
		f.pages <- page
	}
	f.backend = program{dir: b.t.TempDir(), flags: flags}.start(b.t)
	f.url = f.backend.url()
	return f
}

// serveSocket starts a server on a Unix socket.
func (b *builder) serveSocket() front {
	path := filepath.Join(b.t.TempDir(), "userd.sock")
	argv := append([]string{build(b.t, ""), "--listen", "unix:" + path, "--admin-listen", "127.0.0.1:0", "--trusted-proxy", "unix"}, b.asking...)
	return front{url: "unix:" + path, token: b.token, backend: launch(b.t, argv, b.t.TempDir(), nil)}
}

// readmeConfig returns the configuration after a marker in the README.
func readmeConfig(t *testing.T, marker string) string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("<!-- interop: " + marker + " -->\n```[a-z]+\n((?s:.*?))```\n").FindSubmatch(text)
	if found == nil {
		t.Fatalf("README: no configuration marked %q", marker)
	}
	return string(found[1])
}

// replace replaces values of the README's example, which must all exist.
func replace(t *testing.T, config string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(config, pairs[i]) {
			t.Fatalf("README: configuration does not contain %q", pairs[i])
		}
		config = strings.ReplaceAll(config, pairs[i], pairs[i+1])
	}
	return config
}

// nginx starts nginx with the configuration of the README.
func (b *builder) nginx(marker string, behind front) front {
	dir, port := b.t.TempDir(), freePort(b.t)
	upstream := behind.backend.addr
	if path, ok := strings.CutPrefix(behind.url, "unix:"); ok {
		upstream = "unix:" + path
	}
	f := front{url: "http://127.0.0.1:" + port, token: behind.token, pages: behind.pages, backend: behind.backend}
	config := replace(b.t, readmeConfig(b.t, marker), "127.0.0.1:8080", upstream)
	if marker == "nginx" {
		cert, key := b.authority.Server(b.t).Write(b.t, dir)
		config = replace(b.t, config, "listen 443", "listen 127.0.0.1:"+port, "/etc/ssl/userd.crt", cert, "/etc/ssl/userd.key", key)
		f.url, f.ca = "https://127.0.0.1:"+port, b.ca
	} else {
		config = replace(b.t, config, "listen 80", "listen 127.0.0.1:"+port)
	}
	startNginx(b.t, port, config)
	return f
}

// haproxy starts HAProxy with the configuration of the README.
func (b *builder) haproxy(behind front) front {
	dir, port := b.t.TempDir(), freePort(b.t)
	issued := b.authority.Server(b.t)
	both := servertest.WriteFile(b.t, dir, "both.pem", append(issued.Cert, issued.Key...))
	config := replace(b.t, readmeConfig(b.t, "haproxy"), "127.0.0.1:8080", behind.backend.addr,
		"bind :443", "bind 127.0.0.1:"+port, "/etc/ssl/userd.pem", both)
	path := servertest.WriteFile(b.t, dir, "haproxy.cfg", []byte(config))
	startProxy(b.t, port, "haproxy", "-db", "-f", path)
	return front{url: "https://127.0.0.1:" + port, token: behind.token, ca: b.ca, pages: behind.pages, backend: behind.backend}
}

// caddy starts Caddy with the configuration of the README, but with a certificate of the test.
func (b *builder) caddy(behind front) front {
	dir, port := b.t.TempDir(), freePort(b.t)
	cert, key := b.authority.Server(b.t).Write(b.t, dir)
	config := replace(b.t, readmeConfig(b.t, "caddy"), "127.0.0.1:8080", behind.backend.addr,
		"userd.example.com {", "https://127.0.0.1:"+port+" {\n    tls "+cert+" "+key)
	config = "{\n    admin off\n    auto_https disable_redirects\n}\n" + config
	path := servertest.WriteFile(b.t, dir, "Caddyfile", []byte(config))
	startProxy(b.t, port, "caddy", "run", "--adapter", "caddyfile", "--config", path)
	return front{url: "https://127.0.0.1:" + port, token: behind.token, ca: b.ca, pages: behind.pages, backend: behind.backend}
}

// reverseProxy is a proxy with net/http/httputil. It has no FlushInterval: streams are flushed at once
// without it, and a negative one may flush the header of a Trailers-Only response before it ends, so
// that gRPC clients miss the status.
func (b *builder) reverseProxy(behind front) front {
	target, err := url.Parse(behind.url)
	if err != nil {
		b.t.Fatal(err)
	}
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{Protocols: &h2c},
	}
	return front{url: b.listenH2C(proxy), token: behind.token, pages: behind.pages, backend: behind.backend}
}

// emptyResponses responds to each request with an empty success.
func (b *builder) emptyResponses() front {
	return front{url: b.listenH2C(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Allow-Headers", "*")
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		w.Header().Set("Trailer", "Grpc-Status")
		w.WriteHeader(http.StatusOK)
		w.Header().Set("Grpc-Status", "0")
	}))}
}

// listenH2C serves HTTP/1.1 and h2c until the test ends.
func (b *builder) listenH2C(handler http.Handler) string {
	server := httptest.NewUnstartedServer(handler)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	b.t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}
