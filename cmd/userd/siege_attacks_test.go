package main_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/user"
)

const (
	healthCheckPath = "/grpc.health.v1.Health/Check"
	healthWatchPath = "/grpc.health.v1.Health/Watch"
	grpcProto       = "application/grpc+proto"
)

func attacks() []attack {
	return slices.Concat(anonymousAttacks(), headerAttacks(), frameAttacks(), streamAttacks(), callerAttacks(), storeAttacks(), importAttacks(), amplifications(), certificateAttacks())
}

func attackNamed(name string) attack {
	all := attacks()
	i := slices.IndexFunc(all, func(a attack) bool { return a.name == name })
	if i < 0 {
		panic("no attack is named " + name)
	}
	return all[i]
}

// anonymousAttacks need neither credentials nor unusual headers.
func anonymousAttacks() []attack {
	return []attack{
		{name: "gzip health checks", short: true, run: func(a *attacker) error {
			// 4 MB, compressed to less than 4 KiB.
			bomb := enveloped(1, zipped(lengthPrefixed(1, make([]byte, 4_170_000))))
			return a.flood(1, 150, false, request{
				method: "POST", path: healthCheckPath, body: func() io.Reader { return bytes.NewReader(bomb) },
				header: map[string]string{"Content-Type": grpcProto, "Te": "trailers", "Grpc-Encoding": "gzip", "Grpc-Accept-Encoding": "gzip"},
			})
		}},
		{name: "gzip health checks over Connect", run: func(a *attacker) error {
			bomb := zipped(fmt.Appendf(nil, `{"service":"%s"}`, strings.Repeat("a", messageLimit-16)))
			return a.flood(4, 100, false, request{
				method: "POST", path: healthCheckPath, body: func() io.Reader { return bytes.NewReader(bomb) },
				header: map[string]string{"Content-Type": "application/json", "Content-Encoding": "gzip"},
			})
		}},
		{name: "reflection", run: func(a *attacker) error {
			// Each stream repeats the request for the service's file and reads no response.
			ask := enveloped(0, lengthPrefixed(4, []byte("user.v1.UserService")))
			return a.hold(streams{
				conns: 20, each: 200, open: true, body: bytes.Repeat(ask, 20),
				fields: a.post("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", grpcProto),
			})
		}},
		{name: "many addresses", manyCallers: true, run: func(a *attacker) error {
			return a.hold(streams{
				conns: 2000, each: 4, addresses: 1000, body: enveloped(0, a.getUser()),
				fields: a.post(userv1connect.UserServiceGetUserProcedure, grpcProto),
			})
		}},
		{name: "many addresses that update a large user", manyCallers: true, run: func(a *attacker) error {
			return a.hold(streams{
				conns: 2000, each: 4, addresses: 1000,
				body:   enveloped(0, a.marshal(&userv1.UpdateUserRequest{UserId: a.users[0], User: &userv1.User{Tags: []string{"t"}}})),
				fields: a.post(userv1connect.UserServiceUpdateUserProcedure, grpcProto), window: 1 << 20,
			})
		}},
		{name: "idle TLS connections", tls: true, run: func(a *attacker) error {
			return a.repeat(6000, func(int) error {
				conn, err := a.dial(0)
				if err != nil {
					return err
				}
				defer func() { _ = conn.Close() }() // the attack ends
				_, err = io.Copy(io.Discard, a.secure(conn, "h2"))
				return err
			})
		}},
		{name: "TLS handshakes that stop", tls: true, run: func(a *attacker) error {
			return a.repeat(6000, func(int) error {
				return a.silence("\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb\x03\x03" + strings.Repeat("x", 8<<10))
			})
		}},
		{name: "idle h2c connections", run: func(a *attacker) error {
			return a.repeat(9000, func(int) error {
				return a.silence(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00")
			})
		}},
	}
}

// headerAttacks hold memory before a request starts, or with its header.
func headerAttacks() []attack {
	large := strings.Repeat("h", 100<<10)
	return []attack{
		{name: "HTTP/1.1 headers that never end", short: true, run: func(a *attacker) error {
			begins := "GET / HTTP/1.1\r\nHost: localhost\r\n" + strings.Repeat("X-A: "+strings.Repeat("v", 1000)+"\r\n", 120)
			return a.repeat(4000, func(int) error { return a.silence(begins) })
		}},
		{name: "an HTTP/1.1 header of many fields", run: func(a *attacker) error {
			begins := "GET / HTTP/1.1\r\nHost: localhost\r\n" + strings.Repeat("A:\r\n", 30_000)
			return a.repeat(4000, func(int) error { return a.silence(begins) })
		}},
		{name: "HTTP/2 header blocks that never end", run: func(a *attacker) error {
			return a.endlessBlocks(2000, hpack.HeaderField{Name: "x-a", Value: strings.Repeat("v", 15<<10)})
		}},
		{name: "HTTP/2 header blocks of indexed fields", run: func(a *attacker) error {
			// One byte of the block takes at least 32 bytes of the server's memory.
			return a.endlessBlocks(2000, hpack.HeaderField{Name: ":method", Value: "GET"})
		}},
		{name: "health watches with large headers", run: func(a *attacker) error {
			return a.hold(streams{
				conns: 10, each: 900, body: enveloped(0, nil), window: 1 << 16,
				fields: a.post(healthWatchPath, grpcProto, "x-large", large),
			})
		}},
		{name: "health watches with many fields", run: func(a *attacker) error {
			return a.hold(streams{
				conns: 10, each: 900, body: enveloped(0, nil), window: 1 << 16,
				fields: a.post(healthWatchPath, grpcProto, slices.Repeat([]string{"a", ""}, 4000)...),
			})
		}},
		{name: "long URLs over Connect GET", run: func(a *attacker) error {
			query := url.Values{"encoding": {"json"}, "connect": {"v1"}, "message": {`{"userId":"1","pad":"` + strings.Repeat("x", 60<<10) + `"}`}}
			return a.flood(20, 50, false, request{method: "GET", path: userv1connect.UserServiceGetUserProcedure + "?" + query.Encode()})
		}},
		{name: "long REST queries", run: func(a *attacker) error {
			return a.flood(50, 20, true, request{method: "GET", path: "/api/v1/users:batchGet?" + strings.Repeat("user_ids=1&", 9000)})
		}},
	}
}

// silence opens a connection, sends an incomplete request, and waits for the end.
func (a *attacker) silence(begins string) error {
	conn, err := a.dial(0)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the attack ends
	if _, err := io.WriteString(conn, begins); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, conn)
	return err
}

// endlessBlocks sends CONTINUATION frames full of the field until the server closes the
// connection or the block has 1 MiB, and then waits.
func (a *attacker) endlessBlocks(conns int, field hpack.HeaderField) error {
	return a.repeat(conns, func(int) error {
		p, err := a.peer(0)
		if err != nil {
			return err
		}
		defer func() { _ = p.conn.Close() }() // the attack ends
		gone := make(chan error, 1)
		go func() { gone <- a.drain(p, nil) }()
		if err := p.endless(field); err != nil {
			return err
		}
		return <-gone
	})
}

// endless sends 1 MiB of an incomplete header block.
func (p *rawPeer) endless(field hpack.HeaderField) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	err := p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block(userv1connect.UserServiceGetUserProcedure)})
	for sent := 0; err == nil && sent < 1<<20; {
		p.header.Reset()
		for err == nil && p.header.Len() < 15<<10 {
			// Sensitive fields are not indexed, and have their full length each time.
			err = p.packed.WriteField(hpack.HeaderField{Name: field.Name, Value: field.Value, Sensitive: len(field.Value) > 100})
		}
		if err == nil {
			err = p.WriteContinuation(1, false, p.header.Bytes())
		}
		sent += p.header.Len()
	}
	return err
}

// streamAttacks hold streams open where authentication is disabled.
func streamAttacks() []attack {
	return []attack{
		{name: "stalled activity streams", run: func(a *attacker) error {
			return a.hold(streams{
				conns: 9, each: 1000, body: enveloped(0, nil),
				fields: a.post(userv1connect.UserServiceStreamUserActivitiesProcedure, grpcProto),
			})
		}},
		{name: "stalled activity streams of users", run: func(a *attacker) error {
			return a.hold(streams{
				conns: 9, each: 1000, body: enveloped(0, a.marshal(&userv1.StreamUserActivitiesRequest{UserId: a.users[0]})),
				fields: a.post(userv1connect.UserServiceStreamUserActivitiesProcedure, grpcProto),
			})
		}},
		{name: "stalled compressed activity streams", run: func(a *attacker) error {
			return a.hold(streams{
				conns: 4, each: 1000, body: enveloped(0, nil),
				fields: a.post(userv1connect.UserServiceStreamUserActivitiesProcedure, grpcProto, "grpc-accept-encoding", "gzip"),
			})
		}},
		{name: "stalled server-sent events", run: func(a *attacker) error {
			return a.hold(streams{
				conns: 9, each: 1000,
				fields: a.get("/api/v1/users/0/activities", "accept", "text/event-stream"),
			})
		}},
		{name: "stalled NDJSON over HTTP/1.1", run: func(a *attacker) error {
			return a.repeat(5000, func(int) error {
				conn, err := a.dial(0)
				if err != nil {
					return err
				}
				defer func() { _ = conn.Close() }() // the attack ends
				ask := "GET /api/v1/users/0/activities HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson\r\nAccept-Encoding: gzip\r\n\r\n"
				if _, err := io.WriteString(conn, ask); err != nil {
					return err
				}
				<-a.ctx.Done()
				return nil
			})
		}},
		{name: "client streams that never end", run: func(a *attacker) error {
			item := enveloped(0, a.marshal(&userv1.BatchCreateUsersRequest{User: newUser("bad@", 0)}))
			return a.hold(streams{
				conns: 10, each: 900, open: true, body: bytes.Repeat(item, 8),
				fields: a.post(userv1connect.UserServiceBatchCreateUsersProcedure, grpcProto),
			})
		}},
		{name: "client streams of many callers that hold items", manyCallers: true, run: func(a *attacker) error {
			u := &userv1.User{Metadata: make(map[string]string)}
			for i := range 60 {
				u.Metadata[fmt.Sprint("key", i)] = strings.Repeat("v", 1000)
			}
			item := enveloped(1, zipped(a.marshal(&userv1.UpdateUserRequest{UserId: a.users[0], User: u})))
			return a.hold(streams{
				conns: 30, each: 100, addresses: 30, open: true, body: bytes.Repeat(item, 6), // one less than are submitted together
				fields: a.post(userv1connect.UserServiceBatchUpdateUsersProcedure, grpcProto, "grpc-encoding", "gzip"),
			})
		}},
		{name: "client streams of empty messages", permissions: []string{"users.write"}, run: func(a *attacker) error {
			body := make([]byte, 5*100_000) // the prefix of an empty message is five zeros
			return a.flood(10, 2, false, request{
				method: "POST", path: userv1connect.UserServiceBatchUpdateUsersProcedure, body: func() io.Reader { return bytes.NewReader(body) },
				header: map[string]string{"Content-Type": grpcProto, "Te": "trailers"},
			})
		}},
		{name: "messages of client streams that never end", run: func(a *attacker) error {
			begun := slices.Concat(enveloped(0, make([]byte, messageLimit-1))[:5], make([]byte, 4<<10))
			return a.hold(streams{
				conns: 10, each: 900, open: true, body: begun,
				fields: a.post(userv1connect.UserServiceBatchUpdateUsersProcedure, grpcProto),
			})
		}},
		{name: "bodies before a position that is not reached", run: func(a *attacker) error {
			zeros := enveloped(0, make([]byte, messageLimit-16))
			future, err := a.futurePosition()
			if err != nil {
				return err
			}
			return a.flood(400, 2, false, request{
				method: "POST", path: userv1connect.UserServiceUpdateUsersProcedure, body: func() io.Reader { return bytes.NewReader(zeros) },
				header: map[string]string{"Content-Type": grpcProto, "Te": "trailers", "Userd-Min-Position": future},
			})
		}},
		{name: "bodies of client streams that wait for a position", run: func(a *attacker) error {
			items := bytes.Repeat(enveloped(0, make([]byte, 60<<10)), 200)
			future, err := a.futurePosition()
			if err != nil {
				return err
			}
			return a.flood(400, 2, false, request{
				method: "POST", path: userv1connect.UserServiceBatchUpdateUsersProcedure, body: func() io.Reader { return bytes.NewReader(items) },
				header: map[string]string{"Content-Type": grpcProto, "Te": "trailers", "Userd-Min-Position": future},
			})
		}},
		{name: "large bodies for GET routes", run: func(a *attacker) error {
			return a.flood(300, 4, false, request{
				method: "POST", path: "/no/such/path", body: func() io.Reader { return io.LimitReader(zeros{}, 8<<20) },
			})
		}},
		{name: "sync streams that follow 10,000 users", run: func(a *attacker) error {
			return a.flood(4, 8, false, request{
				method: "POST", path: userv1connect.UserServiceSyncUserStatusProcedure,
				body:   func() io.Reader { return bytes.NewReader(a.follows()) },
				header: map[string]string{"Content-Type": grpcProto, "Te": "trailers"},
			})
		}},
		{name: "sync streams that are not read", run: func(a *attacker) error {
			follows := a.follows()
			return a.hold(streams{
				conns: 9, each: 900, open: true, body: follows[:8<<10],
				fields: a.post(userv1connect.UserServiceSyncUserStatusProcedure, grpcProto),
			})
		}},
	}
}

// futurePosition is a position of the server's log that it does not reach.
func (a *attacker) futurePosition() (string, error) {
	url := "http://" + a.Addr + userv1connect.UserServiceGetUserProcedure
	res, err := a.client(true).Post(url, "application/json", strings.NewReader("{}")) //nolint:noctx // it ends with the process
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }() // its header is all that is needed
	epoch, _, found := strings.Cut(res.Header.Get("Userd-Position"), ":")
	if !found {
		return "", fmt.Errorf("status %s has no position", res.Status)
	}
	return fmt.Sprint(epoch, ":", 1<<40), nil
}

// zeros has no end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// follows is a message for each of 10,000 users.
func (a *attacker) follows() (body []byte) {
	for _, id := range a.users {
		body = append(body, enveloped(0, a.marshal(&userv1.UserStatusUpdate{UserId: id}))...)
	}
	return body
}

func (a *attacker) marshal(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err) // a bug of the attack
	}
	return b
}

func (a *attacker) getUser() []byte {
	return a.marshal(&userv1.GetUserRequest{UserId: a.users[0]})
}

// zipped compresses a message.
func zipped(message []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(message) // into memory
	_ = w.Close()
	return b.Bytes()
}

// lengthPrefixed is a field of a message.
func lengthPrefixed(number int, value []byte) []byte {
	field := []byte{byte(number<<3 | 2)}
	for n := len(value); ; n >>= 7 {
		if n < 0x80 {
			return append(append(field, byte(n)), value...)
		}
		field = append(field, byte(n)|0x80)
	}
}

// callerAttacks are attacks by an authenticated caller, mostly with one permission.
func callerAttacks() []attack {
	read := []string{"users.read"}
	return []attack{
		{name: "REST with gzip and a closed window", permissions: read, run: func(a *attacker) error {
			return a.hold(streams{
				conns: 1, each: 900,
				fields: a.get(fmt.Sprint("/api/v1/users/", a.users[0]), "accept-encoding", "gzip"),
			})
		}},
		{name: "REST lists with gzip and a closed window", permissions: read, run: func(a *attacker) error {
			return a.hold(streams{
				conns: 4, each: 300, fields: a.get("/api/v1/users?page_size=1000", "accept-encoding", "gzip"),
			})
		}},
		{name: "Connect with gzip and a closed window", permissions: read, run: func(a *attacker) error {
			return a.hold(streams{
				conns: 2, each: 900, body: a.getUser(),
				fields: a.post(userv1connect.UserServiceGetUserProcedure, "application/proto", "accept-encoding", "gzip"),
			})
		}},
		{name: "8 status streams of 10,000 users", permissions: []string{"status.read"}, run: watchAll(8)},
		{name: "64 status streams of 10,000 users", permissions: []string{"status.read"}, run: watchAll(64)},
		{name: "stalled status streams of 10,000 users", permissions: []string{"status.read"}, run: func(a *attacker) error {
			ask := enveloped(1, zipped(a.marshal(&userv1.WatchUserStatusRequest{UserIds: a.users})))
			return a.hold(streams{
				conns: 4, each: 100, body: ask,
				fields: a.post(userv1connect.UserServiceWatchUserStatusProcedure, grpcProto, "grpc-encoding", "gzip"),
			})
		}},
		{name: "unread responses of large users", permissions: read, run: func(a *attacker) error {
			return a.hold(streams{
				conns: 9, each: 900, body: enveloped(0, a.getUser()),
				fields: a.post(userv1connect.UserServiceGetUserProcedure, grpcProto),
			})
		}},
		{name: "unread batches of large users", permissions: read, run: func(a *attacker) error {
			ask := a.marshal(&userv1.BatchGetUsersRequest{UserIds: a.users[:60]})
			return a.hold(streams{
				conns: 9, each: 100, body: enveloped(0, ask),
				fields: a.post(userv1connect.UserServiceBatchGetUsersProcedure, grpcProto),
			})
		}},
		{name: "unread batches over gRPC-Web", permissions: read, run: func(a *attacker) error {
			ask := a.marshal(&userv1.BatchGetUsersRequest{UserIds: a.users[:60]})
			return a.hold(streams{
				conns: 9, each: 100, body: enveloped(0, ask),
				fields: a.post(userv1connect.UserServiceBatchGetUsersProcedure, "application/grpc-web+proto"),
			})
		}},
		{name: "gzip batches without permission", permissions: read, run: func(a *attacker) error { return a.gzipUpdates(2, 250) }},
		{name: "gzip batches with permission", permissions: []string{"users.write"}, run: func(a *attacker) error { return a.gzipUpdates(2, 250) }},
		{name: "gzip streams without permission", permissions: read, run: func(a *attacker) error {
			body := enveloped(1, zipped(a.largeUpdates()))
			return a.flood(2, 250, false, request{
				method: "POST", path: userv1connect.UserServiceBatchUpdateUsersProcedure, body: func() io.Reader { return bytes.NewReader(body) },
				header: map[string]string{"Content-Type": grpcProto, "Te": "trailers", "Grpc-Encoding": "gzip"},
			})
		}},
		{name: "REST bodies of escapes", permissions: []string{"users.write"}, run: func(a *attacker) error {
			body := zipped([]byte(`{"tags":["` + strings.Repeat(`\u0000`, (1<<20)/6) + `"]}`))
			return a.flood(4, 5, false, request{
				method: "PATCH", path: "/api/v1/users/1", body: func() io.Reader { return bytes.NewReader(body) },
				header: map[string]string{"Content-Type": "application/json", "Content-Encoding": "gzip"},
			})
		}},
		{name: "calls with bad tokens", permissions: read, run: func(a *attacker) error {
			a.Token = "x" + a.Token
			body := enveloped(1, zipped(a.largeUpdates()))
			return a.flood(4, 250, false, request{
				method: "POST", path: userv1connect.UserServiceUpdateUsersProcedure, body: func() io.Reader { return bytes.NewReader(body) },
				header: map[string]string{"Content-Type": grpcProto, "Te": "trailers", "Grpc-Encoding": "gzip"},
			})
		}},
	}
}

func watchAll(n int) func(a *attacker) error {
	return func(a *attacker) error {
		ask := enveloped(0, a.marshal(&userv1.WatchUserStatusRequest{UserIds: a.users}))
		clients := 4
		return a.flood(clients, n/clients, false, request{
			method: "POST", path: userv1connect.UserServiceWatchUserStatusProcedure, body: func() io.Reader { return bytes.NewReader(ask) },
			// The stream has no end: the deadline starts another one.
			header: map[string]string{"Content-Type": grpcProto, "Te": "trailers", "Grpc-Timeout": "1S"},
		})
	}
}

// largeUpdates is a message of 1000 valid updates with as many tags and pairs as are allowed.
func (a *attacker) largeUpdates() []byte {
	u := &userv1.User{Metadata: make(map[string]string)}
	for i := range user.MaxTags {
		u.Tags = append(u.Tags, strconv.Itoa(i))
	}
	for i := range user.MaxMetadata {
		u.Metadata[strconv.Itoa(i)] = ""
	}
	req := new(userv1.UpdateUsersRequest)
	for i := range 1000 {
		req.Requests = append(req.Requests, &userv1.UpdateUserRequest{UserId: a.users[largeUsers+i], User: u})
	}
	return a.marshal(req)
}

func (a *attacker) gzipUpdates(conns, each int) error {
	body := enveloped(1, zipped(a.largeUpdates()))
	return a.flood(conns, each, false, request{
		method: "POST", path: userv1connect.UserServiceUpdateUsersProcedure, body: func() io.Reader { return bytes.NewReader(body) },
		header: map[string]string{"Content-Type": grpcProto, "Te": "trailers", "Grpc-Encoding": "gzip"},
	})
}

// storeAttacks load the store.
func storeAttacks() []attack {
	return []attack{
		{name: "4 lists that match nothing", short: true, permissions: []string{"users.read"}, run: listsOfNothing(4)},
		{name: "50 lists that match nothing", run: listsOfNothing(50)},
		{name: "500 lists that match nothing", permissions: []string{"users.read"}, writes: true, run: listsOfNothing(500)},
		{name: "50 pages of the log that match nothing", permissions: []string{"activities.read", "activities.read_all"}, run: func(a *attacker) error {
			body := enveloped(0, a.marshal(&userv1.StreamUserActivitiesRequest{Actions: []string{"app.never"}, ReplayOnly: true}))
			return a.flood(2, 25, false, request{
				method: "POST", path: userv1connect.UserServiceStreamUserActivitiesProcedure, body: func() io.Reader { return bytes.NewReader(body) },
				header: map[string]string{"Content-Type": grpcProto, "Te": "trailers"},
			})
		}},
		{name: "50 replays of the log", permissions: []string{"activities.read", "activities.read_all"}, run: func(a *attacker) error {
			body := enveloped(0, a.marshal(&userv1.StreamUserActivitiesRequest{ReplayOnly: true}))
			return a.flood(5, 10, false, request{
				method: "POST", path: userv1connect.UserServiceStreamUserActivitiesProcedure, body: func() io.Reader { return bytes.NewReader(body) },
				header: map[string]string{"Content-Type": grpcProto, "Te": "trailers"},
			})
		}},
		{name: "50 batches of 1000 users", permissions: []string{"users.read"}, run: func(a *attacker) error {
			body := enveloped(0, a.marshal(&userv1.BatchGetUsersRequest{UserIds: a.users[largeUsers : largeUsers+1000]}))
			return a.flood(5, 10, false, request{
				method: "POST", path: userv1connect.UserServiceBatchGetUsersProcedure, body: func() io.Reader { return bytes.NewReader(body) },
				header: map[string]string{"Content-Type": grpcProto, "Te": "trailers"},
			})
		}},
		{name: "20 updates of 1000 users", permissions: []string{"users.write"}, writes: true, run: updates(20)},
		{name: "updates of large users", permissions: []string{"users.write"}, writes: true, run: func(a *attacker) error {
			// A request of 16 KB changes 60 MB of users.
			req := new(userv1.UpdateUsersRequest)
			for i := range 1000 {
				req.Requests = append(req.Requests, &userv1.UpdateUserRequest{UserId: a.users[i%largeUsers], User: &userv1.User{Tags: []string{"t"}}})
			}
			body := enveloped(0, a.marshal(req))
			return a.flood(5, 4, false, request{
				method: "POST", path: userv1connect.UserServiceUpdateUsersProcedure, body: func() io.Reader { return bytes.NewReader(body) },
				header: map[string]string{"Content-Type": grpcProto, "Te": "trailers"},
			})
		}},
		{name: "idempotent updates of large users", permissions: []string{"users.write"}, writes: true, run: func(a *attacker) error {
			client := a.client(false)
			return a.repeat(16, func(i int) error {
				req := new(userv1.UpdateUsersRequest)
				tag := strconv.FormatInt(time.Now().UnixNano(), 36)
				for j := range 60 {
					req.Requests = append(req.Requests, &userv1.UpdateUserRequest{
						UserId: a.users[(i*60+j)%largeUsers], User: &userv1.User{Tags: []string{tag}},
						RequestId: fmt.Sprintf("%08x-0000-4000-8000-%012x", time.Now().UnixNano()&0xffffffff, i*60+j),
					})
				}
				body := enveloped(0, a.marshal(req))
				err := a.request(client, request{
					method: "POST", path: userv1connect.UserServiceUpdateUsersProcedure, body: func() io.Reader { return bytes.NewReader(body) },
					header: map[string]string{"Content-Type": grpcProto, "Te": "trailers"},
				})
				return err
			})
		}},
		{name: "streams of updates of large users", permissions: []string{"users.write"}, run: func(a *attacker) error {
			var body []byte
			for i := range 2000 {
				tag := strconv.Itoa(i)
				body = append(body, enveloped(0, a.marshal(&userv1.UpdateUserRequest{UserId: a.users[i%largeUsers], User: &userv1.User{Tags: []string{tag}}}))...)
			}
			return a.flood(5, 4, false, request{
				method: "POST", path: userv1connect.UserServiceBatchUpdateUsersProcedure, body: func() io.Reader { return bytes.NewReader(body) },
				header: map[string]string{"Content-Type": grpcProto, "Te": "trailers"},
			})
		}},
		{name: "500 single reads", run: func(a *attacker) error {
			body := enveloped(0, a.getUser())
			return a.flood(5, 100, false, request{
				method: "POST", path: userv1connect.UserServiceGetUserProcedure, body: func() io.Reader { return bytes.NewReader(body) },
				header: map[string]string{"Content-Type": grpcProto, "Te": "trailers"},
			})
		}},
		{name: "500 single updates", permissions: []string{"users.write"}, writes: true, run: func(a *attacker) error {
			body := enveloped(0, a.marshal(&userv1.UpdateUserRequest{UserId: a.users[300], User: &userv1.User{Tags: []string{"t"}}}))
			return a.flood(5, 100, false, request{
				method: "POST", path: userv1connect.UserServiceUpdateUserProcedure, body: func() io.Reader { return bytes.NewReader(body) },
				header: map[string]string{"Content-Type": grpcProto, "Te": "trailers"},
			})
		}},
	}
}

func listsOfNothing(n int) func(a *attacker) error {
	return func(a *attacker) error {
		body := enveloped(0, a.marshal(&userv1.ListUsersRequest{Filter: `created_at < "2000-01-01T00:00:00Z"`, PageSize: 1000}))
		return a.flood(2, n/2, false, request{
			method: "POST", path: userv1connect.UserServiceListUsersProcedure, body: func() io.Reader { return bytes.NewReader(body) },
			header: map[string]string{"Content-Type": grpcProto, "Te": "trailers"},
		})
	}
}

// updates changes 1000 users with each of n calls at a time.
func updates(n int) func(a *attacker) error {
	return func(a *attacker) error {
		client := a.client(false)
		return a.repeat(n, func(i int) error {
			req := new(userv1.UpdateUsersRequest)
			tag := strconv.FormatInt(time.Now().UnixNano(), 36)
			for j := range 1000 {
				req.Requests = append(req.Requests, &userv1.UpdateUserRequest{
					UserId: a.users[(largeUsers+1000*(i%9)+j)%len(a.users)], User: &userv1.User{Tags: []string{tag}},
				})
			}
			body := enveloped(0, a.marshal(req))
			err := a.request(client, request{
				method: "POST", path: userv1connect.UserServiceUpdateUsersProcedure, body: func() io.Reader { return bytes.NewReader(body) },
				header: map[string]string{"Content-Type": grpcProto, "Te": "trailers"},
			})
			return err
		})
	}
}

// amplifications cause much output for little input: log lines, stored records, responses.
func amplifications() []attack {
	return []attack{
		{name: "refused requests with long paths", run: func(a *attacker) error {
			return a.flood(4, 4, true, request{method: "GET", path: "/" + strings.Repeat("p", 10<<10)})
		}, check: func(t *testing.T, s *siege) {
			if sent := s.counts["requests"] * 10 << 10; int64(s.logBytes) > sent/4 {
				t.Errorf("%d bytes of requests made %d bytes of log, want at most a quarter", sent, s.logBytes)
			}
		}},
		{name: "refused short requests", permissions: []string{}, run: func(a *attacker) error {
			return a.flood(4, 4, true, request{method: "GET", path: "/x"})
		}, check: func(t *testing.T, s *siege) {
			if most := 64<<10 + int(s.counts["requests"])*8; s.logBytes > most {
				t.Errorf("%d refused requests made %d bytes of log, want at most %d", s.counts["requests"], s.logBytes, most)
			}
		}},
		{name: "status streams of 10,000 bad ids", run: func(a *attacker) error {
			bad := new(userv1.WatchUserStatusRequest)
			for range 10_000 {
				bad.UserIds = append(bad.UserIds, -1)
			}
			body := enveloped(1, zipped(a.marshal(bad)))
			return a.flood(2, 10, false, request{
				method: "POST", path: userv1connect.UserServiceWatchUserStatusProcedure, body: func() io.Reader { return bytes.NewReader(body) },
				header: map[string]string{"Content-Type": "application/grpc-web+proto", "Grpc-Encoding": "gzip"},
			})
		}, check: func(t *testing.T, s *siege) {
			if each := s.counts["bytes received"] / max(1, s.counts["requests"]); each > 16<<10 {
				t.Errorf("a response has %d bytes, want at most %d", each, 16<<10)
			}
		}},
		{name: "no-op updates with request ids", writes: true, run: func(a *attacker) error {
			client := a.client(true)
			return a.repeat(16, func(i int) error {
				id := fmt.Sprintf("%08x-0000-4000-8000-%012x", time.Now().UnixNano()&0xffffffff, i)
				body := fmt.Appendf(nil, `{"tags":["bench"],"request_id":"%s"}`, id)
				err := a.request(client, request{
					method: "PATCH", path: fmt.Sprintf("/api/v1/users/%d?update_mask=tags&request_id=%s", a.users[0], id),
					body: func() io.Reader { return bytes.NewReader(body) }, header: map[string]string{"Content-Type": "application/json"},
				})
				return err
			})
		}, check: func(t *testing.T, s *siege) {
			before, after := fileSize(t, siegeStore(t).dir), fileSize(t, s.cmd.Dir)
			if each := (after - before) / max(1, s.counts["requests"]); each > 4<<10 {
				t.Errorf("each of %d updates stored %d bytes, want at most %d", s.counts["requests"], each, 4<<10)
			}
		}},
	}
}
