package main_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const framesAhead = 1000

// rawPeer is an HTTP/2 client that sends single frames.
type rawPeer struct {
	*http2.Framer

	conn net.Conn
	// ahead has a token for each frame that may be sent before end has read its reset.
	ahead  chan struct{}
	header bytes.Buffer
	packed *hpack.Encoder
	// writing serializes writes from several goroutines.
	writing sync.Mutex
}

// connect opens a TCP connection.
func (x *target) connect(t *testing.T) net.Conn {
	t.Helper()
	var dialer net.Dialer
	conn, err := dialer.DialContext(t.Context(), "tcp", x.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(waitTimeout)); err != nil {
		t.Fatal(err)
	}
	x.dialed = append(x.dialed, conn)
	return conn
}

// secure wraps the connection with TLS if the program uses it.
func (x *target) secure(conn net.Conn, protocol string) net.Conn {
	if x.trust == nil {
		return conn
	}
	config := x.trust.Clone()
	config.NextProtos = []string{protocol}
	return tls.Client(conn, config)
}

// dial opens a connection, with TLS if the program uses it, and sends bytes.
func (x *target) dial(t *testing.T, begins string) net.Conn {
	t.Helper()
	conn := x.secure(x.connect(t), "http/1.1")
	if _, err := io.WriteString(conn, begins); err != nil {
		t.Fatal(err)
	}
	return conn
}

func (x *target) peer(t *testing.T, settings ...http2.Setting) *rawPeer {
	t.Helper()
	p, err := newRawPeer(x.secure(x.connect(t), "h2"), settings...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// newRawPeer sends the connection preface and SETTINGS.
func newRawPeer(conn net.Conn, settings ...http2.Setting) (*rawPeer, error) {
	p := &rawPeer{conn: conn, ahead: make(chan struct{}, framesAhead)}
	for range framesAhead {
		p.ahead <- struct{}{}
	}
	if _, err := io.WriteString(p.conn, http2.ClientPreface); err != nil {
		return nil, err
	}
	p.Framer = http2.NewFramer(p.conn, p.conn)
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.packed = hpack.NewEncoder(&p.header)
	err := p.WriteSettings(settings...)
	return p, err
}

// block returns the header block of a gRPC call.
func (p *rawPeer) block(path string, more ...hpack.HeaderField) []byte {
	p.header.Reset()
	for _, f := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: "localhost"}, {Name: ":path", Value: path},
		{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	}, more...) {
		_ = p.packed.WriteField(f)
	}
	return bytes.Clone(p.header.Bytes())
}

// open sends the HEADERS of a gRPC call.
func (p *rawPeer) open(id uint32, path string, more ...hpack.HeaderField) error {
	return p.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: p.block(path, more...), EndHeaders: true,
	})
}

// enveloped prefixes a message with its flags and length.
func enveloped(flags byte, message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message))), message...)
}

// goAwayInfo is the content of a GOAWAY frame.
type goAwayInfo struct {
	code http2.ErrCode
	text string
}

// end reads to the end of the connection and returns the last GOAWAY.
func (p *rawPeer) end() (last *goAwayInfo) {
	defer close(p.ahead)
	for {
		frame, err := p.ReadFrame()
		if goAway, ok := frame.(*http2.GoAwayFrame); ok {
			last = &goAwayInfo{goAway.ErrCode, string(goAway.DebugData())}
		}
		if _, ok := frame.(*http2.RSTStreamFrame); ok {
			select {
			case p.ahead <- struct{}{}:
			default:
			}
		}
		if err != nil && !errors.As(err, new(http2.StreamError)) {
			return last
		}
	}
}

// awaitReset reads until the server resets the stream, and returns the code.
func (p *rawPeer) awaitReset(t *testing.T, id uint32) http2.ErrCode {
	t.Helper()
	for {
		frame, err := p.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if reset, ok := frame.(*http2.RSTStreamFrame); ok && reset.StreamID == id {
			return reset.ErrCode
		}
	}
}

// awaitPong reads until a PING ack and returns nil, or until GOAWAY or an error.
func (p *rawPeer) awaitPong() *goAwayInfo {
	for {
		frame, err := p.ReadFrame()
		switch frame := frame.(type) {
		case *http2.PingFrame:
			if frame.IsAck() {
				return nil
			}
		case *http2.GoAwayFrame:
			return &goAwayInfo{frame.ErrCode, string(frame.DebugData())}
		default:
		}
		if err != nil {
			return &goAwayInfo{text: err.Error()}
		}
	}
}
