package servertest

import (
	"net"
	"testing"

	"golang.org/x/net/nettest"
)

func TestPipe(t *testing.T) {
	nettest.TestConn(t, func() (client, server net.Conn, stop func(), err error) {
		client, server = newPipe(loopback(1), loopback(2))
		return client, server, func() {
			_ = client.Close()
			_ = server.Close()
		}, nil
	})
}
