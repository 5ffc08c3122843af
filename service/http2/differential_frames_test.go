package http2_test

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/yourorg/userservice/service/http2"
)

var (
	sequences    = flag.Int("sequences", 1000, "frame sequences that are compared with net/http")
	sequenceSeed = flag.Uint64("seed", 1, "seed of the frame sequences")
)

// Random sequences of frames have the same observable results as with net/http: responses, resets, acknowledgments and the error that
// ends the connection. The differences on purpose are in explainedFrames.
func TestDifferentialFrames(t *testing.T) {
	t.Logf("%d sequences with -seed %d", *sequences, *sequenceSeed)
	results := compareFrames(t, *sequenceSeed, *sequences, nil)
	for _, text := range results.unexplained {
		t.Error(text)
	}
	t.Logf("%d frames", results.frames)
	for _, reason := range slices.Sorted(maps.Keys(results.reasons)) {
		t.Logf("%6d sequences: %s", results.reasons[reason], reason)
	}
	if equal := results.reasons["equal"]; equal < *sequences/2 {
		t.Errorf("sequences without a difference = %d of %d, want at least half", equal, *sequences)
	}
}

// The comparison finds faults: of the connection between this package and the client.
func TestDifferentialFramesFindFaults(t *testing.T) {
	faults := map[string]func(frame []byte) []byte{
		"PING without acknowledgment": func(f []byte) []byte {
			if xhttp2.FrameType(f[3]) == xhttp2.FramePing {
				return nil
			}
			return f
		},
		"wrong code of RST_STREAM": func(f []byte) []byte {
			if xhttp2.FrameType(f[3]) == xhttp2.FrameRSTStream {
				f[12] ^= 1
			}
			return f
		},
		"RST_STREAM lost": func(f []byte) []byte {
			if xhttp2.FrameType(f[3]) == xhttp2.FrameRSTStream {
				return nil
			}
			return f
		},
		"response without END_STREAM": func(f []byte) []byte {
			if xhttp2.FrameType(f[3]) == xhttp2.FrameData {
				f[4] &^= byte(xhttp2.FlagDataEndStream)
			}
			return f
		},
		"wrong code of GOAWAY": func(f []byte) []byte {
			if xhttp2.FrameType(f[3]) == xhttp2.FrameGoAway {
				f[16] ^= 8
			}
			return f
		},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			if results := compareFrames(t, 1, 200, fault); len(results.unexplained) == 0 {
				t.Error("the fault was not found")
			}
		})
	}
}

// frameResults are the results of a comparison.
type frameResults struct {
	frames      int
	reasons     map[string]int // number of sequences
	unexplained []string
}

// compareFrames compares sequences. fault, if set, changes the frames that this package sends.
func compareFrames(t *testing.T, seed uint64, n int, fault func([]byte) []byte) (r frameResults) {
	r.reasons = make(map[string]int)
	const perServer, most = 100, 10
	for first := 0; first < n && len(r.unexplained) < most; first += perServer {
		synctest.Test(t, func(t *testing.T) {
			noLimits := func(hs *http.Server, o *http2.Options) {
				o.Frames = http2.FrameLimits{}
				hs.HTTP2.MaxConcurrentStreams, hs.HTTP2.MaxReadFrameSize = 5, 16<<10
			}
			ours, theirs := newPipes(), newPipes()
			a := own.startOn(t, ours, false, collect, noLimits)
			b := std.startOn(t, theirs, false, collect, noLimits)
			for i := first; i < min(first+perServer, n) && len(r.unexplained) < most; i++ {
				r.compare(t, newFrameScript(seed, uint64(i)), ours, theirs, fault)
			}
			time.Sleep(5 * time.Second) // in the bubble: net/http waits after GOAWAY
			a.close()
			b.close()
			time.Sleep(5 * time.Second)
			if text := a.log.String(); strings.Contains(text, "panic") {
				t.Error(text)
			}
		})
	}
	return r
}

// compare sends a sequence to both engines until the connection ends or the results differ.
func (r *frameResults) compare(t *testing.T, s *frameScript, ours, theirs *pipes, fault func([]byte) []byte) {
	a, b := openObserver(t, ours, fault), openObserver(t, theirs, nil)
	defer a.close()
	defer b.close()
	var sent []string
	before := a.observed()
	for range 4 + s.rand.IntN(16) {
		name, wire := s.step()
		sent = append(sent, name)
		r.frames++
		a.send(wire)
		b.send(wire)
		got, want := a.observed(), b.observed()
		if got != want {
			reason := explainedFrames(name, s, before, got, want)
			if reason == "" {
				reason = "not explained"
				r.unexplained = append(r.unexplained, fmt.Sprintf("-seed %d, sequence %d: after\n\t%s\ngot\n%s\nwant\n%s\nas from net/http",
					s.seed, s.number, strings.Join(sent, "\n\t"), got, want))
			}
			r.reasons[reason]++
			return
		}
		if a.ended {
			break
		}
		before = got
	}
	r.reasons["equal"]++
}

// collect responds with the length of the body, on /early without reading it.
func collect(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/early" {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_, _ = fmt.Fprint(w, len(body), r.Trailer)
}

// observer is a client that records what it receives.
type observer struct {
	*peer

	ended bool
}

func openObserver(t *testing.T, l *pipes, fault func([]byte) []byte) *observer {
	client, server := net.Pipe()
	if fault != nil {
		server = &faultyConn{server, fault}
	}
	l.conns <- server
	o := &observer{peer: newPeer(t, client)}
	go o.read()
	o.wbuf.WriteString(xhttp2.ClientPreface)
	o.check(o.fr.WriteSettings())
	o.check(o.fr.WriteSettingsAck())
	o.send(bytes.Clone(o.wbuf.Bytes()))
	return o
}

// send sends frames and waits until the server does nothing.
func (o *observer) send(wire []byte) {
	_, _ = o.conn.Write(wire) // fails if the connection is closed
	synctest.Wait()
}

func (o *observer) close() {
	_ = o.conn.Close()
	synctest.Wait()
}

// observed describes everything received so far.
func (o *observer) observed() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	streams := make(map[uint32]string)
	settings, goAway := 0, ""
	var pings []string
	for _, f := range o.got {
		switch f.Type { //nolint:exhaustive // windows are a choice of the server
		case xhttp2.FrameHeaders:
			streams[f.StreamID] += " " + f.fields[":status"] + f.fields["x-t"]
		case xhttp2.FrameData:
			streams[f.StreamID] += fmt.Sprintf(" %q", f.data)
		case xhttp2.FrameRSTStream:
			streams[f.StreamID] += " reset " + f.code.String()
		case xhttp2.FrameSettings:
			if f.Flags.Has(xhttp2.FlagSettingsAck) {
				settings++
			}
		case xhttp2.FramePing:
			pings = append(pings, fmt.Sprint(f.Flags, f.ping[0]))
		case xhttp2.FrameGoAway:
			goAway = "GOAWAY " + f.code.String()
		}
		if f.Type == xhttp2.FrameHeaders || f.Type == xhttp2.FrameData {
			if f.Flags.Has(xhttp2.FlagDataEndStream) {
				streams[f.StreamID] += " end"
			}
		}
	}
	if o.err != nil && goAway == "" {
		goAway = "closed"
	}
	o.ended = goAway != ""
	if o.ended { // responses in progress may be lost
		return goAway
	}
	text := fmt.Sprintf("%d acknowledged SETTINGS, PINGs %v", settings, pings)
	for _, id := range slices.Sorted(maps.Keys(streams)) {
		text += fmt.Sprintf("; %d:%s", id, streams[id])
	}
	return text
}

// faultyConn changes the frames of a server.
type faultyConn struct {
	net.Conn

	fault func(frame []byte) []byte
}

func (c *faultyConn) Write(p []byte) (int, error) {
	var out []byte
	for rest := p; len(rest) > 0; {
		size := 9 + int(rest[0])<<16 + int(rest[1])<<8 + int(rest[2])
		out = append(out, c.fault(bytes.Clone(rest[:size]))...)
		rest = rest[size:]
	}
	if _, err := c.Conn.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// explainedFrames returns why the results of a frame differ on purpose, "" if they should not. before is the result of the frames before
// it, equal for both.
func explainedFrames(sent string, s *frameScript, before, ours, theirs string) string {
	wasReset, _ := regexp.MatchString(fmt.Sprintf("; %d:[^;]* reset", s.id), before)
	wasEnded, _ := regexp.MatchString(fmt.Sprintf("; %d:[^;]* end", s.id), before)
	wasClosed := wasReset || wasEnded || !s.alive[s.id]
	switch {
	case strings.HasPrefix(sent, "SETTINGS acknowledgment") && theirs == "GOAWAY PROTOCOL_ERROR":
		return "an acknowledgment of SETTINGS that were not sent is ignored"
	case strings.HasPrefix(sent, "PRIORITY") && strings.HasSuffix(sent, "itself") && ours == "GOAWAY PROTOCOL_ERROR":
		return "a self-dependency is an error of the connection: a client must not provoke resets"
	case strings.HasPrefix(sent, "SETTINGS with a repeated identifier") && theirs == "GOAWAY PROTOCOL_ERROR":
		return "the values of a repeated setting are applied in order (section 6.5.3)"
	case strings.HasPrefix(ours, "GOAWAY ") && theirs == "closed":
		return "an error of the connection is sent, also one of the framing"
	case strings.HasPrefix(sent, "WINDOW_UPDATE") && strings.HasSuffix(sent, "by 0") && ours == "GOAWAY PROTOCOL_ERROR":
		return "WINDOW_UPDATE on an idle stream is an error of the connection, also an invalid one"
	case strings.HasPrefix(sent, "WINDOW_UPDATE") && ours == before && wasClosed:
		return "WINDOW_UPDATE on a closed stream is ignored, also an invalid one"
	case same(ours, theirs, "REFUSED_STREAM", "PROTOCOL_ERROR"):
		return "a stream over the limit is refused, so that clients repeat it"
	case same(ours, theirs, "PROTOCOL_ERROR", "INTERNAL_ERROR"):
		return "a body of a wrong length is malformed (section 8.1.1)"
	case strings.HasPrefix(sent, "request") && strings.Contains(sent, "with a length") && strings.Contains(ours, fmt.Sprintf("; %d: reset PROTOCOL_ERROR", s.id)):
		return "a body of a wrong length is malformed, also an empty one (net/http before Go 1.27)"
	case strings.HasPrefix(sent, "trailers") && same(ours, theirs, "STREAM_CLOSED", "PROTOCOL_ERROR"):
		return "malformed HEADERS on a half-closed stream"
	case strings.HasPrefix(sent, "trailers") && strings.Contains(sent, "self-dependent"):
		return "a self-dependency of trailers is an error too"
	case strings.HasPrefix(sent, "malformed request") && s.id%2 == 0 && ours == "GOAWAY PROTOCOL_ERROR":
		return "a malformed request on a stream of the server is an error of the connection"
	case strings.HasPrefix(sent, "trailers") && wasClosed && ours == "GOAWAY PROTOCOL_ERROR":
		return "HEADERS on a stream that was skipped are an error of the connection, also if malformed"
	case strings.HasPrefix(sent, "malformed request") && strings.Contains(sent, "continued") && theirs == "GOAWAY PROTOCOL_ERROR":
		return "a malformed request is an error of its stream, also with CONTINUATION frames"
	case s.malformed && wasClosed && ours == before && theirs == "GOAWAY PROTOCOL_ERROR":
		return "a malformed request opens its stream, so earlier ones are not idle"
	case strings.HasPrefix(sent, "SETTINGS") && strings.HasPrefix(ours, "GOAWAY") && strings.HasPrefix(theirs, "GOAWAY"):
		return "two settings are invalid, and the first one is reported"
	case strings.HasPrefix(sent, "SETTINGS") && ours == "GOAWAY FLOW_CONTROL_ERROR":
		return "SETTINGS_INITIAL_WINDOW_SIZE must not make a window too large (section 6.9.2)"
	case sent == "unknown 0x10" && ours == before:
		return "PRIORITY_UPDATE is unknown"
	case strings.HasPrefix(sent, "malformed request") && strings.Contains(theirs, ": 400"):
		return "a connection-specific field makes a request malformed (section 8.2.2)"
	case wasReset && ours == before:
		return "frames on a stream that the server reset are ignored (section 5.1)"
	case strings.HasPrefix(sent, "trailers") && ours == "GOAWAY STREAM_CLOSED":
		return "HEADERS on a closed stream are an error of the connection (section 5.1)"
	}
	return ""
}

// same reports whether two results are equal but for a code of resets.
func same(a, b, code, other string) bool {
	return strings.ReplaceAll(a, "reset "+code, "reset "+other) == strings.ReplaceAll(b, "reset "+code, "reset "+other)
}
