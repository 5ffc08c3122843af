package transport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

const stallTimeout = 10 * time.Second

// pair returns both ends of an unbuffered in-process connection. The server side batches writes if
// the input is HTTP/2.
func pair(t *testing.T, start string) (*serverConn, net.Conn) {
	t.Helper()
	inner, peer := net.Pipe()
	c := newServerConn(inner, Listen(nil, ListenOptions{StallTimeout: stallTimeout}))
	go func() { _, _ = io.WriteString(peer, start) }()
	if _, err := io.ReadFull(c, make([]byte, len(start))); err != nil {
		t.Fatal(err)
	}
	return c, peer
}

const (
	asHTTP2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	asHTTP1 = "POST / HTTP/1.1\r\n\r\n"
)

// All writes arrive in order over a TCP connection, also those before Close.
func TestBatchedWritesArriveInOrder(t *testing.T) {
	t.Parallel()
	var config net.ListenConfig
	inner, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener := Listen(inner, ListenOptions{StallTimeout: stallTimeout})
	defer func() { _ = listener.Close() }()
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		want := make([]byte, random.IntN(1<<20))
		for i := range want {
			want[i] = byte(random.Uint32())
		}
		var sizes []int
		for left := len(want); left > 0; {
			n := min(1+random.IntN(1<<random.IntN(18)), left)
			sizes = append(sizes, n)
			left -= n
		}
		var dialer net.Dialer
		peer, err := dialer.DialContext(t.Context(), "tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(peer, asHTTP2); err != nil {
			t.Fatal(err)
		}
		var writing sync.WaitGroup
		writing.Go(func() {
			c, err := listener.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := io.ReadFull(c, make([]byte, len(asHTTP2))); err != nil {
				t.Error(err)
			}
			for rest := want; len(sizes) > 0; sizes = sizes[1:] {
				p := bytes.Clone(rest[:sizes[0]])
				if n, err := c.Write(p); n != len(p) || err != nil {
					t.Errorf("Write() = %d of %d, %v", n, len(p), err)
				}
				clear(p) // Write must not keep p
				rest = rest[sizes[0]:]
			}
			if err := errors.Join(c.Close(), c.Close()); err != nil {
				t.Error(err)
			}
		})
		got, err := io.ReadAll(peer)
		_ = peer.Close()
		writing.Wait()
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("received %d bytes of %d, %v", len(got), len(want), err)
		}
	}
}

func TestConcurrentWritesAreBatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pair(t, asHTTP2)
		for range 10 {
			if _, err := c.Write([]byte("frame")); err != nil {
				t.Fatal(err)
			}
		}
		// The first write may contain only the first frame.
		reads := 0
		for got := 0; got < 50; reads++ {
			n, err := peer.Read(make([]byte, 100))
			if err != nil {
				t.Fatal(err)
			}
			got += n
		}
		if reads > 2 {
			t.Errorf("batch needed %d writes, want 2 at most", reads)
		}
		_ = c.Close()
	})
}

func TestBatchedWriteStallTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pair(t, asHTTP2)
		began := time.Now()
		n, err := c.Write(make([]byte, 3*maxPending)) // more than the pending limit
		if !errors.Is(err, os.ErrDeadlineExceeded) || n >= 3*maxPending {
			t.Errorf("got %d, %v", n, err)
		}
		if took := time.Since(began); took != stallTimeout {
			t.Errorf("it took %v", took)
		}
		if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("Read(peer) = %v, want EOF", err)
		}
		if _, err := c.Write([]byte("x")); err == nil {
			t.Error("Write() after the end = nil, want an error")
		}
		_ = c.Close()
	})
}

func TestBatchedWriteToSlowPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pair(t, asHTTP2)
		sent := []byte("slow, but it reads")
		if _, err := c.Write(sent); err != nil {
			t.Fatal(err)
		}
		var got []byte
		for range sent {
			time.Sleep(stallTimeout - time.Second)
			one := make([]byte, 1)
			if _, err := peer.Read(one); err != nil {
				t.Fatal(err)
			}
			got = append(got, one...)
		}
		if !bytes.Equal(got, sent) {
			t.Errorf("got %q", got)
		}
		_ = c.Close()
	})
}

func TestCloseDoesNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pair(t, asHTTP2)
		if _, err := c.Write([]byte("unread")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		began := time.Now()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("Read() after Close() = nil, want an error")
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("Close() took %v, want 0", took)
		}
		time.Sleep(lingerTimeout)
		synctest.Wait()
		if _, err := peer.Write([]byte("x")); err == nil {
			t.Error("Write(peer) after Close() = nil, want an error")
		}
	})
}

func TestHTTP1WritesAreNotBatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := pair(t, asHTTP1)
		began := time.Now()
		if err := c.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Write([]byte("unread")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %d, %v", n, err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %v", took)
		}
		_ = c.Close()
	})
}

// The first frame of a server is SETTINGS (RFC 9113, section 3.4), also if the connection is closed
// before net/http has written any frame.
func TestEarlyGoAwayFollowsSettings(t *testing.T) {
	closeEarly := map[string]func(c *serverConn){
		"abort":           func(c *serverConn) { c.abort(CloseMemory) },
		"closeWithGoAway": func(c *serverConn) { c.closeWithGoAway(ClosePings) },
	}
	for name, closes := range closeEarly {
		for _, settingsSent := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, settings sent %t", name, settingsSent), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, peer := pair(t, asHTTP2)
					if settingsSent {
						if _, err := c.Write(emptySettings()); err != nil {
							t.Fatal(err)
						}
					}
					go closes(c)
					framer := http2.NewFramer(nil, peer)
					for _, want := range []http2.FrameType{http2.FrameSettings, http2.FrameGoAway} {
						if frame, err := framer.ReadFrame(); err != nil || frame.Header().Type != want {
							t.Errorf("ReadFrame() = %v, %v, want %v", frame, err, want)
						}
					}
					_ = peer.Close()
					_ = c.Close()
				})
			})
		}
	}
}
