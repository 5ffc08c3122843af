package client

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"pgregory.net/rapid"
)

// A body that is read ahead has the same bytes and the same error at its end.
func TestReadAheadReturnsTheBody(t *testing.T) {
	broken := errors.New("broken")
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 50_000), 0, 5).Draw(t, "parts")
		end := rapid.SampledFrom([]error{nil, broken}).Draw(t, "end")
		r, w := io.Pipe()
		body := newReadAhead(r)
		go func() {
			for _, part := range parts {
				_, _ = w.Write(part)
			}
			_ = w.CloseWithError(end)
		}()
		var from io.Reader = body
		if rapid.Bool().Draw(t, "one byte at a time") {
			from = iotest.OneByteReader(body)
		}
		if got, err := io.ReadAll(from); !bytes.Equal(got, bytes.Join(parts, nil)) || !errors.Is(err, end) {
			t.Errorf("%d bytes, %v, want %d, %v", len(got), err, len(bytes.Join(parts, nil)), end)
		}
		if err := body.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Writes before a read are returned by one read, up to a limit of bytes, and the writer waits then.
func TestReadAheadJoinsWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		body := newReadAhead(r)
		written := 0
		go func() {
			for range 100 {
				_, _ = w.Write(make([]byte, 1000))
				written += 1000
			}
			_ = w.Close()
		}()
		synctest.Wait()
		if written < maxReadAhead || written > maxReadAhead+2000 {
			t.Errorf("%d bytes written before a read, want about %d", written, maxReadAhead)
		}
		p := make([]byte, 200_000)
		if n, err := body.Read(p); n < maxReadAhead || err != nil {
			t.Errorf("Read() = %d, %v, want at least %d bytes", n, err, maxReadAhead)
		}
		if rest, err := io.ReadAll(body); err != nil || written != 100_000 {
			t.Errorf("the rest = %d bytes, %v, of %d written, want all", len(rest), err, written)
		}
	})
}

// Close ends writes and reads.
func TestReadAheadClose(t *testing.T) {
	for name, bytes := range map[string]int{"while it reads": 0, "while it is full": 2 * maxReadAhead} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, w := io.Pipe()
				body := newReadAhead(r)
				ended := make(chan error, 1)
				go func() {
					_, _ = w.Write(make([]byte, bytes))
					_, err := w.Write([]byte{1})
					for err == nil {
						_, err = w.Write([]byte{1})
					}
					ended <- err
				}()
				synctest.Wait()
				if err := body.Close(); err != nil {
					t.Error(err)
				}
				if err := <-ended; !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("Write() after Close: error = %v, want %v", err, io.ErrClosedPipe)
				}
				if _, err := io.ReadAll(body); !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("Read() after Close: error = %v, want %v", err, io.ErrClosedPipe)
				}
			})
		})
	}
}
