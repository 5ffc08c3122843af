package http2_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// fuzzSeeds are the frames of valid requests and of the attacks that need few bytes.
func fuzzSeeds() [][]byte {
	var wire, block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	fields := request("POST", "/a")
	for i := 0; i < len(fields); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	fr := xhttp2.NewFramer(&wire, nil)
	fr.AllowIllegalWrites = true
	seeds := make([][]byte, 0, 8)
	add := func(write func()) {
		wire.Reset()
		write()
		seeds = append(seeds, bytes.Clone(wire.Bytes()))
	}
	headers := func(id uint32, end bool) {
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, EndStream: end, EndHeaders: true, BlockFragment: block.Bytes()})
	}
	add(func() { headers(1, true); headers(3, false); _ = fr.WriteData(3, true, []byte("abc")) })
	add(func() {
		headers(1, false)
		_ = fr.WriteDataPadded(1, false, []byte("abc"), make([]byte, 3))
		headers(1, true)
	})
	add(func() {
		headers(1, false)
		_ = fr.WriteRSTStream(1, xhttp2.ErrCodeCancel)
		_ = fr.WriteData(1, true, nil)
	})
	add(func() {
		_ = fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0}, xhttp2.Setting{ID: xhttp2.SettingHeaderTableSize, Val: 0})
		headers(1, true)
		_ = fr.WriteWindowUpdate(1, 1)
		_ = fr.WriteWindowUpdate(0, 1<<31-1)
	})
	add(func() {
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes()[:2]})
		_ = fr.WriteContinuation(1, true, block.Bytes()[2:])
		_ = fr.WritePriority(5, xhttp2.PriorityParam{StreamDep: 3})
		_ = fr.WritePing(false, [8]byte{1})
		_ = fr.WriteGoAway(0, xhttp2.ErrCodeNo, nil)
	})
	return seeds
}

// FuzzFrames sends any bytes after the preface. The server must neither panic nor stop serving, and the connection
// must end when the client closes it.
func FuzzFrames(f *testing.F) {
	for _, seed := range fuzzSeeds() {
		f.Add(seed)
	}
	listener := newPipes()
	s := own.startOn(f, listener, false, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(io.LimitReader(r.Body, 10))
		write(w, len(body))
		_ = http.NewResponseController(w).Flush()
		w.Header().Set(http.TrailerPrefix+"X-T", "t")
	})
	f.Cleanup(s.close)
	f.Fuzz(func(t *testing.T, frames []byte) {
		client, server := net.Pipe()
		listener.conns <- server
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = io.Copy(io.Discard, client)
		}()
		_ = client.SetDeadline(time.Now().Add(testTimeout))
		settings := []byte{0, 0, 0, byte(xhttp2.FrameSettings), 0, 0, 0, 0, 0}
		if _, err := client.Write(append(append([]byte(xhttp2.ClientPreface), settings...), frames...)); err == nil {
			_ = client.Close()
		}
		select {
		case <-ended:
		case <-time.After(testTimeout):
			t.Fatal("the connection does not end")
		}
		_ = client.Close()
		if text := s.log.String(); strings.Contains(text, "panic") {
			t.Fatal(text)
		}
	})
}
