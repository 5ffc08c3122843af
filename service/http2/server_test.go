package http2_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

func TestRequestsAndResponses(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 64<<10)
	tests := []struct {
		name    string
		method  string
		path    string
		body    string
		header  http.Header
		handler http.HandlerFunc
		want    string // status, selected header fields, body and trailers, see describe
	}{
		{"empty", "GET", "/", "", nil, func(http.ResponseWriter, *http.Request) {}, "200 length=0 type= []"},
		{"body", "GET", "/", "", nil, func(w http.ResponseWriter, _ *http.Request) { write(w, "hello") },
			"200 length=5 type=text/plain; charset=utf-8 hello []"},
		{"echo", "POST", "/", "abc", nil, echo, "200 length=3 type=text/plain; charset=utf-8 abc []"},
		{"large echo", "POST", "/", large, nil, echo, "200 length=-1 type=text/plain; charset=utf-8 " + large + " []"},
		{"HEAD", "HEAD", "/", "", nil, func(w http.ResponseWriter, _ *http.Request) { write(w, "hello") }, "200 length=5 type=text/plain; charset=utf-8 []"},
		{"HEAD with length", "HEAD", "/", "", nil, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "7") },
			"200 length=7 type= []"},
		{"no content", "GET", "/", "", nil, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNoContent)
			if _, err := io.WriteString(w, "x"); !errors.Is(err, http.ErrBodyNotAllowed) {
				panic(err)
			}
		}, "204 length=0 type= []"},
		{"query", "GET", "/a%20b?c=d&e", "", nil, func(w http.ResponseWriter, r *http.Request) {
			write(w, r.URL.Path, " ", r.URL.RawQuery, " ", r.RequestURI, " ", r.Host, " ", r.Proto)
		}, "200 length=44 type=text/plain; charset=utf-8 /a b c=d&e /a%20b?c=d&e example.com HTTP/2.0 []"},
		{"declared trailer", "GET", "/", "", nil, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-A, X-B")
			write(w, "x")
			w.Header().Set("X-A", "1")
		}, "200 length=? type=text/plain; charset=utf-8 x [X-A=1]"},
		{"prefixed trailer", "GET", "/", "", nil, func(w http.ResponseWriter, _ *http.Request) {
			write(w, "x")
			_ = http.NewResponseController(w).Flush()
			w.Header().Set(http.TrailerPrefix+"X-A", "1")
		}, "200 length=? type=text/plain; charset=utf-8 x [X-A=1]"},
		{"trailers without body", "GET", "/", "", nil, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(http.TrailerPrefix+"X-A", "1")
		}, "200 length=? type= [X-A=1]"},
		{"length exceeded", "GET", "/", "", nil, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1")
			if _, err := io.WriteString(w, "xy"); err == nil {
				panic("no error")
			}
		}, "error"},
		{"abort", "GET", "/", "", nil, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "error"},
		{"panic", "GET", "/", "", nil, func(http.ResponseWriter, *http.Request) { panic("boom") }, "error"},
		{"cookies", "GET", "/", "", http.Header{"Cookie": {"a=1; b=2"}}, func(w http.ResponseWriter, r *http.Request) {
			write(w, r.Header["Cookie"])
		}, "200 length=10 type=text/plain; charset=utf-8 [a=1; b=2] []"},
		{"early response", "POST", "/", large, nil, func(w http.ResponseWriter, _ *http.Request) { write(w, "no") },
			"200 length=2 type=text/plain; charset=utf-8 no []"},
		{"options", "OPTIONS", "*", "", nil, echo, "200 length=0 type= []"},
	}
	each(t, func(t *testing.T, e engine, secure bool) {
		var handler http.HandlerFunc
		s := e.start(t, secure, func(w http.ResponseWriter, r *http.Request) { handler(w, r) })
		client := s.client()
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				handler = tt.handler
				r, err := http.NewRequestWithContext(t.Context(), tt.method, s.url("/"), strings.NewReader(tt.body))
				if err != nil {
					t.Fatal(err)
				}
				if tt.path == "*" {
					r.URL.Opaque = "*"
				} else {
					r.URL, _ = r.URL.Parse(tt.path)
				}
				for name, values := range tt.header {
					r.Header[name] = values
				}
				if got := describe(client, r); got != tt.want {
					t.Errorf("response = %.200q, want %.200q", got, tt.want)
				}
			})
		}
	})
}

// write writes values like fmt.Fprint.
func write(w io.Writer, values ...any) { _, _ = fmt.Fprint(w, values...) }

func describe(client *http.Client, r *http.Request) string {
	response, err := client.Do(r)
	if err != nil {
		return "error"
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "error"
	}
	var trailers []string
	for name, values := range response.Trailer {
		for _, value := range values {
			trailers = append(trailers, name+"="+value)
		}
	}
	slices.Sort(trailers)
	text := ""
	if len(body) > 0 {
		text = string(body) + " "
	}
	length := fmt.Sprint(response.ContentLength)
	if len(trailers) > 0 {
		length = "?" // this package adds none
	}
	return fmt.Sprintf("%d length=%s type=%s %s%v", response.StatusCode, length, response.Header.Get("Content-Type"), text, trailers)
}

func TestRequestTrailers(t *testing.T) {
	each(t, func(t *testing.T, e engine, secure bool) {
		got := make(chan http.Header, 1)
		s := e.start(t, secure, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			got <- r.Trailer
		})
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url("/"), io.NopCloser(strings.NewReader("x")))
		r.Trailer = http.Header{"X-A": {"1"}}
		describe(s.client(), r)
		if trailer := <-got; trailer.Get("X-A") != "1" {
			t.Errorf("trailer = %v, want X-A=1", trailer)
		}
	})
}

func TestContinue(t *testing.T) {
	each(t, func(t *testing.T, e engine, secure bool) {
		s := e.start(t, secure, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				w.Header().Set("Link", "</a>")
				w.WriteHeader(http.StatusEarlyHints)
			}
			echo(w, r)
		})
		client := s.client()
		transport, ok := client.Transport.(*http.Transport)
		if !ok {
			t.Fatal("no transport")
		}
		transport.ExpectContinueTimeout = testTimeout
		var informational []int
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
				informational = append(informational, code)
				if code == http.StatusEarlyHints && header.Get("Link") != "</a>" {
					t.Errorf("Link = %q, want </a>", header.Get("Link"))
				}
				return nil
			},
		})
		r, _ := http.NewRequestWithContext(ctx, http.MethodPost, s.url("/"), strings.NewReader("abc"))
		r.Header.Set("Expect", "100-continue")
		if got, want := describe(client, r), "200 length=3 type=text/plain; charset=utf-8 abc []"; got != want {
			t.Errorf("response = %q, want %q", got, want)
		}
		r, _ = http.NewRequestWithContext(ctx, http.MethodGet, s.url("/"), nil)
		describe(client, r)
		if want := []int{100, 103}; !slices.Equal(informational, want) {
			t.Errorf("informational responses = %v, want %v", informational, want)
		}
	})
}

// Both directions of a stream work at the same time.
func TestFullDuplex(t *testing.T) {
	each(t, func(t *testing.T, e engine, secure bool) {
		s := e.start(t, secure, func(w http.ResponseWriter, r *http.Request) {
			control := http.NewResponseController(w)
			buf := make([]byte, 1)
			for {
				n, err := r.Body.Read(buf)
				if n > 0 {
					_, _ = w.Write(bytes.ToUpper(buf[:n]))
					_ = control.Flush()
				}
				if err != nil {
					return
				}
			}
		})
		send, out := io.Pipe()
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url("/"), send)
		go func() { _, _ = io.WriteString(out, "a") }()
		response, err := s.client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		got := make([]byte, 1)
		for i := range 100 {
			if i > 0 {
				_, _ = io.WriteString(out, "a")
			}
			if _, err := io.ReadFull(response.Body, got); err != nil || got[0] != 'A' {
				t.Fatalf("message %d = %q, %v, want A", i, got, err)
			}
		}
		_ = out.Close()
		if _, err := response.Body.Read(got); err != io.EOF {
			t.Errorf("end of the response = %v, want EOF", err)
		}
	})
}

// A reset by the client cancels the context, and so does the end of the connection.
func TestCancel(t *testing.T) {
	each(t, func(t *testing.T, e engine, secure bool) {
		ended := make(chan error, 1)
		s := e.start(t, secure, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			_, err := r.Body.Read(make([]byte, 1))
			ended <- err
		})
		for name, end := range map[string]func(p *peer){
			"reset": func(p *peer) { p.check(p.fr.WriteRSTStream(1, xhttp2.ErrCodeCancel)); p.flush() },
			"close": func(p *peer) { _ = p.conn.Close() },
		} {
			t.Run(name, func(t *testing.T) {
				p := s.dial()
				p.headers(1, false)
				p.flush()
				p.await("HEADERS", func(f frame) bool { return f.Type == xhttp2.FrameHeaders })
				end(p)
				select {
				case err := <-ended:
					if err == nil || err == io.EOF { //nolint:errorlint // documented
						t.Errorf("read after the end = %v, want an error", err)
					}
				case <-time.After(testTimeout):
					t.Error("the context is not canceled")
				}
			})
		}
	})
}

func TestDeadlines(t *testing.T) {
	past := time.Unix(1, 0)
	tests := map[string]struct {
		handler func(http.ResponseWriter, *http.Request, *http.ResponseController) error
		want    error
	}{
		"read deadline in the past": {func(_ http.ResponseWriter, r *http.Request, c *http.ResponseController) error {
			_ = c.SetReadDeadline(past)
			_, err := r.Body.Read(make([]byte, 1))
			return err
		}, os.ErrDeadlineExceeded},
		"read deadline during a read": {func(_ http.ResponseWriter, r *http.Request, c *http.ResponseController) error {
			_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, err := r.Body.Read(make([]byte, 1))
			return err
		}, os.ErrDeadlineExceeded},
		"write deadline in the past": {func(w http.ResponseWriter, _ *http.Request, c *http.ResponseController) error {
			_ = c.SetWriteDeadline(past)
			_, err := w.Write(make([]byte, 1<<20))
			return err
		}, errTest},
		"write deadline during a write": {func(w http.ResponseWriter, _ *http.Request, c *http.ResponseController) error {
			_ = c.SetWriteDeadline(time.Now().Add(time.Millisecond))
			_, err := w.Write(make([]byte, 1<<20)) // more than the window
			return err
		}, errTest},
	}
	each(t, func(t *testing.T, e engine, secure bool) {
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				got := make(chan error, 1)
				s := e.start(t, secure, func(w http.ResponseWriter, r *http.Request) {
					got <- tt.handler(w, r, http.NewResponseController(w))
				})
				p := s.dial()
				p.headers(1, false)
				p.flush()
				err := <-got
				if err == nil || errors.Is(tt.want, os.ErrDeadlineExceeded) && !errors.Is(err, tt.want) {
					t.Errorf("error = %v, want %v", err, tt.want)
				}
				if status, _, _ := p.response(1); strings.HasPrefix(name, "write") && status != "reset INTERNAL_ERROR" {
					t.Errorf("response = %s, want a reset", status)
				}
			})
		}
	})
}
