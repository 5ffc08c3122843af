package http2_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"
)

// scripted is a handler that is told by the query what to do.
func scripted(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	number := func(name string) int { n, _ := strconv.Atoi(query.Get(name)); return n }
	control := http.NewResponseController(w)
	var body []byte
	if query.Has("read") {
		var err error
		if body, err = io.ReadAll(io.LimitReader(r.Body, int64(number("read")))); err != nil {
			panic(http.ErrAbortHandler)
		}
	}
	w.Header().Set("X-Read", fmt.Sprint(len(body), " ", r.ContentLength))
	w.Header().Set("X-Request", fmt.Sprint(r.Method, r.Host, r.URL.Path, r.Header["X-A"], r.Header["Cookie"], r.Header["Expect"]))
	if query.Has("declare") {
		w.Header().Set("Trailer", "X-T, Content-Length")
	}
	if query.Has("length") {
		w.Header().Set("Content-Length", query.Get("length"))
	}
	if query.Has("encoded") {
		w.Header().Set("Content-Encoding", "x")
	}
	if query.Has("status") {
		w.WriteHeader(number("status"))
	}
	for i := range number("writes") {
		_, _ = w.Write([]byte(strings.Repeat(strconv.Itoa(i%10), number("size"))))
		if query.Has("flush") {
			_ = control.Flush()
		}
	}
	w.Header().Set("X-T", fmt.Sprint(r.Trailer["X-T"]))
	if query.Has("prefix") {
		w.Header().Set(http.TrailerPrefix+"X-P", "p")
	}
	if query.Has("panic") {
		panic(http.ErrAbortHandler)
	}
}

// scriptedRequest is a request of a random script.
type scriptedRequest struct {
	method, path string
	fields       []string
	chunks       []int
	padding      int
	trailers     []string
}

func randomRequest(r *rand.Rand) scriptedRequest {
	pick := func(values ...string) string { return values[r.IntN(len(values))] }
	var query []string
	for _, parameter := range []string{"read=100000", "declare=1", "flush=1", "prefix=1", "encoded=1", "length=x", "status=" + pick("200", "204", "304", "404", "500")} {
		if r.IntN(3) == 0 {
			query = append(query, parameter)
		}
	}
	query = append(query, "writes="+pick("0", "1", "2", "5"), "size="+pick("0", "1", "100", "5000", "70000"))
	if r.IntN(20) == 0 {
		query = append(query, "panic=1")
	}
	x := scriptedRequest{
		method: pick("GET", "POST", "HEAD", "PUT", "OPTIONS", "x"),
		path:   pick("/", "/a", "//a", "/a%20b", "/a/../b", "/%zz", "/a b", "x") + "?" + strings.Join(query, "&"),
	}
	for range r.IntN(4) {
		x.fields = append(x.fields, []string{"x-a", pick("1", "", " 2 ", "é")}...)
	}
	for _, field := range [][2]string{
		{"cookie", "a=1"}, {"cookie", "b=2"}, {"trailer", "X-T"}, {"te", "trailers"}, {"x-large", strings.Repeat("l", 3000)},
		{"content-length", pick("0", "5", "100", "x")}, {"X-Upper", "1"}, {"x-bad", "a\nb"}, {":late", "1"},
	} {
		if r.IntN(8) == 0 {
			x.fields = append(x.fields, field[0], field[1])
		}
	}
	for range r.IntN(4) {
		x.chunks = append(x.chunks, []int{0, 1, 5, 95, 10000}[r.IntN(5)])
	}
	x.padding = []int{0, 0, 1, 200}[r.IntN(4)]
	if len(x.chunks) > 0 && r.IntN(4) == 0 {
		x.trailers = []string{pick("x-t", "x-other", "X-T", ":status"), "t"}
	}
	return x
}

// run sends a request on a connection of its own and returns what a client observes.
func (x scriptedRequest) run(s *testServer) string {
	p := s.dial()
	defer func() { _ = p.conn.Close() }()
	// The client reads everything, so windows do not matter.
	p.check(p.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1 << 24}))
	p.check(p.fr.WriteWindowUpdate(0, 1<<24))
	end := len(x.chunks) == 0 && x.trailers == nil
	p.check(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{
		StreamID: 1, EndStream: end, EndHeaders: true, BlockFragment: p.block(append(request(x.method, x.path), x.fields...)...),
	}))
	for i, n := range x.chunks {
		last := i == len(x.chunks)-1 && x.trailers == nil
		p.check(p.fr.WriteDataPadded(1, last, make([]byte, n), make([]byte, x.padding)))
	}
	if x.trailers != nil {
		p.check(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: p.block(x.trailers...)}))
	}
	p.flush()
	status, body, trailers := p.response(1)
	var header []string
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.got {
		if f.Type != xhttp2.FrameHeaders || f.fields[":status"] == "" {
			continue
		}
		for name, value := range f.fields {
			if name != "date" && (name != "content-length" || len(trailers) == 0) { // see ARCHITECTURE.md for the length
				header = append(header, name+"="+value)
			}
		}
	}
	slices.Sort(header)
	if strings.HasPrefix(status, "reset") {
		return status // how much of a response precedes a reset depends on the time
	}
	return fmt.Sprintf("%s %v %d %.20q %v", status, header, len(body), body, trailers)
}

// explained reports whether the engines differ on purpose.
func (x scriptedRequest) explained(ours, theirs string) bool {
	switch {
	case ours == "reset INTERNAL_ERROR" && x.method == http.MethodHead && strings.Contains(x.path, "panic=1"):
		return true // net/http ends the response to HEAD with its header
	case ours == "reset PROTOCOL_ERROR" && strings.HasPrefix(theirs, "closed"):
		return true // net/http forgets the stream of a malformed request, and takes its body for an error of the connection
	case ours == "reset PROTOCOL_ERROR" && strings.HasPrefix(theirs, "reset"):
		return true // an invalid length is found before or after the response
	case strings.HasPrefix(ours, "reset PROTOCOL_ERROR"):
		// A content-length that is not a number is an error of the request here, and length 0 for net/http.
		for i := 0; i < len(x.fields); i += 2 {
			if x.fields[i] == "content-length" && (x.fields[i+1] == "x" || sum(x.chunks) != x.length()) {
				return true
			}
		}
		return x.trailers != nil // malformed trailers after the response
	case strings.HasPrefix(theirs, "reset PROTOCOL_ERROR"):
		return sum(x.chunks) != x.length() || x.trailers != nil // the response may come first
	}
	return false
}

func (x scriptedRequest) length() int {
	for i := 0; i < len(x.fields); i += 2 {
		if x.fields[i] == "content-length" {
			n, _ := strconv.Atoi(x.fields[i+1])
			return n
		}
	}
	return sum(x.chunks)
}

func sum(values []int) (n int) {
	for _, v := range values {
		n += v
	}
	return n
}

// Random requests have the same responses as with net/http.
func TestDifferential(t *testing.T) {
	ours, theirs := own.start(t, false, scripted), std.start(t, false, scripted)
	r := rand.New(rand.NewPCG(1, 2))
	equal := 0
	const requests = 1500
	for i := range requests {
		x := randomRequest(r)
		got, want := x.run(ours), x.run(theirs)
		if got == want {
			equal++
		} else if !x.explained(got, want) {
			t.Errorf("request %d %s %s %.100q %v padding %d %v:\ngot  %.400s\nwant %.400s as from net/http", i, x.method, x.path, x.fields, x.chunks, x.padding, x.trailers, got, want)
		}
	}
	if equal < requests/2 {
		t.Errorf("equal responses = %d of %d, want at least half", equal, requests)
	}
}
