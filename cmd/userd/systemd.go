package main

import (
	"context"
	"errors"
	"log/slog"
	"net"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// adminSocket is the FileDescriptorName of the admin listener's socket unit.
const adminSocket = "admin"

// sockets are the listeners passed by systemd, or nil.
type sockets struct{ public, admin net.Listener }

// activatedSockets returns the listeners of systemd socket activation (LISTEN_FDS).
func activatedSockets() (s sockets, err error) {
	byName, err := activation.ListenersWithNames()
	if err != nil {
		return s, err
	}
	for name, listeners := range byName {
		for _, listener := range listeners {
			target := &s.public
			if name == adminSocket {
				target = &s.admin
			}
			if *target != nil {
				return s, errors.New("socket activation: expected one socket, and one with FileDescriptorName=" + adminSocket + " for the admin listener")
			}
			*target = listener
		}
	}
	return s, nil
}

// extendStart extends the timeout of systemd for the start by a minute. It does nothing without NOTIFY_SOCKET.
func extendStart() {
	_, _ = daemon.SdNotify(false, "EXTEND_TIMEOUT_USEC=60000000") // notifySystemd reports errors
}

// notifySystemd sends READY=1, and STOPPING=1 when ctx is done. It does nothing without
// NOTIFY_SOCKET.
func notifySystemd(ctx context.Context, log *slog.Logger) {
	notify := func(state string) {
		if _, err := daemon.SdNotify(false, state); err != nil {
			log.WarnContext(ctx, "service manager not notified", slog.String("state", state), slog.Any("error", err))
		}
	}
	notify(daemon.SdNotifyReady)
	context.AfterFunc(ctx, func() { notify(daemon.SdNotifyStopping) })
}
