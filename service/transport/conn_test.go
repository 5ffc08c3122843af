package transport

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const stallLimit = 10 * time.Second

// pair returns the two ends of a connection within the process, which buffers
// nothing; the first one gathers if it is to be HTTP/2.
func pair(t *testing.T, begins string) (*gatherConn, net.Conn) {
	t.Helper()
	inner, peer := net.Pipe()
	c := newGatherConn(inner, Listen(nil, ListenOptions{StallTimeout: stallLimit}))
	go func() { _, _ = io.WriteString(peer, begins) }()
	if _, err := io.ReadFull(c, make([]byte, len(begins))); err != nil {
		t.Fatal(err)
	}
	return c, peer
}

const (
	asHTTP2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	asHTTP1 = "POST / HTTP/1.1\r\n\r\n"
)

// Everything that was written arrives, in order, over a real connection whose peer
// reads in steps of its own; Close loses nothing of it.
func TestGatherLosesNothing(t *testing.T) {
	t.Parallel()
	var config net.ListenConfig
	inner, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener := Listen(inner, ListenOptions{StallTimeout: stallLimit})
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
					t.Errorf("wrote %d of %d, %v", n, len(p), err)
				}
				clear(p) // it is the writer's again
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
			t.Fatalf("got %d bytes of %d, %v", len(got), len(want), err)
		}
	}
}

func TestGatherWritesAtOnceWhatComesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pair(t, asHTTP2)
		for range 10 {
			if _, err := c.Write([]byte("frame")); err != nil {
				t.Fatal(err)
			}
		}
		// The first write may have begun with the first frame; the rest is one.
		reads := 0
		for got := 0; got < 50; reads++ {
			n, err := peer.Read(make([]byte, 100))
			if err != nil {
				t.Fatal(err)
			}
			got += n
		}
		if reads > 2 {
			t.Errorf("it took %d writes", reads)
		}
		_ = c.Close()
	})
}

func TestGatherEndsWithAPeerThatTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pair(t, asHTTP2)
		began := time.Now()
		n, err := c.Write(make([]byte, 3*gatherBytes)) // more than is gathered
		if !errors.Is(err, os.ErrDeadlineExceeded) || n >= 3*gatherBytes {
			t.Errorf("got %d, %v", n, err)
		}
		if took := time.Since(began); took != stallLimit {
			t.Errorf("it took %v", took)
		}
		if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the connection is open: %v", err)
		}
		if _, err := c.Write([]byte("x")); err == nil {
			t.Error("a later write is taken")
		}
		_ = c.Close()
	})
}

func TestGatherBearsASlowPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pair(t, asHTTP2)
		sent := []byte("slow, but it reads")
		if _, err := c.Write(sent); err != nil {
			t.Fatal(err)
		}
		var got []byte
		for range sent {
			time.Sleep(stallLimit - time.Second)
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

func TestGatherCloseDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pair(t, asHTTP2)
		if _, err := c.Write([]byte("nobody reads this")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		began := time.Now()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a reader goes on")
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("closing took %v", took)
		}
		time.Sleep(closeGrace)
		synctest.Wait()
		if _, err := peer.Write([]byte("x")); err == nil {
			t.Error("the connection is still open")
		}
	})
}

func TestHTTP1IsLeftAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := pair(t, asHTTP1)
		began := time.Now()
		if err := c.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Write([]byte("nobody reads this")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %d, %v", n, err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %v", took)
		}
		_ = c.Close()
	})
}
