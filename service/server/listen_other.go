//go:build !unix

package server

import (
	"context"
	"errors"
	"io/fs"
	"net"
)

func listenSocket(context.Context, string, fs.FileMode) (net.Listener, error) {
	return nil, errors.New("Unix sockets are not supported on this system")
}
