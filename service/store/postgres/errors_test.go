package postgres

import (
	"context"
	"net"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/yourorg/userservice/service/user"
)

// A server that refuses connections, for whatever reason, makes the store unavailable. It is no unexpected error.
func TestRefusedConnection(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"57P03", "57P01", "53300", "28P01", "3D000", "0A000", "XX000"} {
		address := refuse(t, state)
		_, err := pgconn.Connect(t.Context(), "postgres://userd@"+address+"/users?sslmode=disable")
		if sqlState(err) != state {
			t.Fatalf("Connect = %v, want SQLSTATE %s", err, state)
		}
		if !isStoreError(err) {
			t.Errorf("isStoreError(%v) = false, want true", err)
		}
		if got := translate(err); !user.HasReason(got, user.StoreUnavailable) {
			t.Errorf("translate(%v) = %v, want STORE_UNAVAILABLE", err, got)
		}
	}
}

// refuse returns the address of a server that refuses connections with a state.
func refuse(t *testing.T, state string) (address string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			server := pgproto3.NewBackend(conn, conn)
			if _, err := server.ReceiveStartupMessage(); err == nil {
				server.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: state, Message: "refused"})
				_ = server.Flush() // the client reports what it received
			}
			_ = conn.Close()
		}
	}()
	return l.Addr().String()
}
