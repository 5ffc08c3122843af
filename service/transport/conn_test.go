package transport

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

const stallTimeout = 10 * time.Second

// pair returns both ends of an unbuffered in-process connection.
func pair() (*serverConn, net.Conn) {
	inner, peer := net.Pipe()
	return newServerConn(inner, Listen(nil, ListenOptions{StallTimeout: stallTimeout})), peer
}

func TestCheckedWriteStallTimeout(t *testing.T) {
	for _, closing := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c, _ := pair()
			want := stallTimeout
			if closing {
				c.closing.Store(true)
				want = lingerTimeout
			}
			start := time.Now()
			n, err := c.writeChecked(c.Conn, []byte("unread"))
			if took := time.Since(start); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || took != want {
				t.Errorf("writeChecked(), closing %t = %d, %v after %v, want a timeout after %v", closing, n, err, took, want)
			}
		})
	}
}

func TestCheckedWriteToSlowPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pair()
		want := []byte("slow, but it reads")
		written := make(chan error, 1)
		go func() {
			_, err := c.writeChecked(c.Conn, want)
			written <- err
		}()
		var got []byte
		for range want {
			time.Sleep(stallTimeout - time.Second)
			one := make([]byte, 1)
			if _, err := peer.Read(one); err != nil {
				t.Fatal(err)
			}
			got = append(got, one...)
		}
		if err := <-written; err != nil || !bytes.Equal(got, want) {
			t.Errorf("writeChecked() = %v, received %q, want nil and %q", err, got, want)
		}
	})
}

// net/http closes connections twice.
func TestSecondClose(t *testing.T) {
	t.Parallel()
	c, peer := pair()
	closed := 0
	c.onClose = func() { closed++ }
	if err := errors.Join(c.Close(), c.Close()); err != nil || closed != 1 {
		t.Errorf("Close() twice = %v with %d calls of onClose, want nil and 1", err, closed)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("Read() after Close() = nil, want an error")
	}
	if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("Read() of the peer = %v, want EOF", err)
	}
}

// The write deadline of net/http applies without TLS.
func TestWriteDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := pair()
		start := time.Now()
		if err := c.SetWriteDeadline(start.Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Write([]byte("unread"))
		if took := time.Since(start); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || took != time.Second {
			t.Errorf("Write() = %d, %v after %v, want a timeout after 1s", n, err, took)
		}
	})
}

// A header block that is complete is progress, although its handler has not started.
func TestHeaderIsProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := pair()
		time.Sleep(time.Minute)
		m := meter{c}
		for _, step := range []struct {
			encoded int
			want    time.Duration
		}{{100, 0}, {0, time.Minute}} {
			if err := m.Header(step.encoded); err != nil {
				t.Fatal(err)
			}
			if got := time.Duration(c.memory.progress.Load()); got != step.want {
				t.Errorf("progress after Header(%d) = %v, want %v", step.encoded, got, step.want)
			}
		}
	})
}
