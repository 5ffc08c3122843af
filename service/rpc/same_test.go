package rpc_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/codec"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/reqinfo"
	"github.com/yourorg/userservice/service/rpc"
	"github.com/yourorg/userservice/service/user"
)

// fake returns what the id of the user says.
type fake struct {
	userv1connect.UnimplementedUserServiceHandler
}

// ids of users with a result other than a small user.
const (
	largeUser = iota + 1
	missingUser
	unexpectedError
	panics
	invalidText // cannot be encoded
	waits       // until the timeout; not in random calls, whose outcome must not depend on the time
)

func (fake) GetUser(ctx context.Context, req *userv1.GetUserRequest) (*userv1.GetUserResponse, error) {
	reqinfo.HeaderOfResponse(ctx)["Etag"] = []string{`"1"`}
	u := &userv1.User{UserId: req.GetUserId(), Username: "ann", Tags: req.GetFields()}
	switch req.GetUserId() {
	case largeUser:
		u.Username = strings.Repeat("Ann ", 1000)
	case invalidText:
		u.Username = "\xff"
	case missingUser:
		return nil, user.NewNotFoundError(missingUser)
	case unexpectedError:
		return nil, io.ErrNoProgress
	case panics:
		panic("panic of a test")
	case waits:
		if _, ok := ctx.Deadline(); ok {
			<-ctx.Done()
			return nil, ctx.Err()
		}
	}
	return &userv1.GetUserResponse{User: u}, nil
}

// StreamUserActivities is ServeUserActivities behind connect.
func (f fake) StreamUserActivities(
	ctx context.Context, req *userv1.StreamUserActivitiesRequest, stream *connect.ServerStream[userv1.UserActivity],
) error {
	return f.ServeUserActivities(ctx, req, stream.Conn())
}

// ServeUserActivities sends a message for each action, and ends like GetUser.
func (f fake) ServeUserActivities(ctx context.Context, req *userv1.StreamUserActivitiesRequest, conn connect.StreamingHandlerConn) error {
	spec, peer := conn.Spec(), conn.Peer()
	conn.ResponseHeader()["Observed"] = []string{
		spec.Procedure, spec.StreamType.String(), peer.Addr, peer.Protocol, conn.RequestHeader().Get("Content-Type"),
	}
	if req.GetReplayOnly() {
		conn.ResponseTrailer()["Userd-End"] = []string{"trailer"}
	}
	if req.GetFromHead() {
		if err := conn.Send(nil); err != nil {
			return err
		}
	}
	for _, action := range req.GetActions() {
		if err := conn.Send(&userv1.UserActivity{UserId: req.GetUserId(), Action: action}); err != nil {
			return err
		}
	}
	if req.GetUserId() == invalidText {
		return conn.Send(&userv1.UserActivity{Action: "\xff"})
	}
	_, err := f.GetUser(ctx, &userv1.GetUserRequest{UserId: req.GetUserId()})
	return err
}

// handlers returns the handler of this package and that of connect, with the same RPCs and interceptors. passed counts the requests that
// the first one passed to the second.
func handlers() (own, connected http.Handler, passed *int) {
	chain := []connect.Interceptor{intercept.NewErrors(slog.New(slog.DiscardHandler)), connect.UnaryInterceptorFunc(describe)}
	messages := codec.NewMessages(codec.MessageOptions{
		TooLarge:    func(_ *http.Request, limit int64) error { return intercept.NewTooLargeError(limit) },
		TooComplex:  func(limit int64) error { return intercept.NewTooComplexError(limit) },
		DecodedSize: func(_ protoreflect.MessageDescriptor, _ bool, data []byte) int64 { return int64(len(data)) },
		MaxDecoded:  1 << 20,
	})
	compressors := codec.NewCompressors()
	limit := func(string) int64 { return 2000 }
	authorize := func(ctx context.Context, _ string) error {
		if ctx.Value(deniedKey{}) != nil {
			return &user.Error{Code: user.PermissionDenied, Reason: user.PermissionMissing, Message: "permission missing"}
		}
		return nil
	}
	_, oracle := userv1connect.NewUserServiceHandler(fake{}, connect.WithHandlerOptions(
		connect.WithRequestGate(messages.Gate(func(ctx context.Context, procedure string) *connect.Error {
			if err := authorize(ctx, procedure); err != nil {
				converted, _ := intercept.ToConnect(err)
				return converted
			}
			return nil
		}, limit)),
		connect.WithInterceptors(chain...), messages.Codecs(),
		compressors.Gzip(2000, func(limit int64) error { return intercept.NewTooLargeError(limit) }),
	))
	passed = new(int)
	next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*passed++
		oracle.ServeHTTP(w, r)
	})
	return messages.Handler(rpc.NewHandler(rpc.Options{
		Methods: rpc.UserService(fake{}, chain...), Streams: rpc.UserStreams(fake{}, chain...), Next: next, Authorize: authorize, MaxMessageBytes: limit, Compressors: compressors,
	})), messages.Handler(oracle), passed
}

type deniedKey struct{}

// describe is an interceptor that adds what it observes of the request to the header of the response.
func describe(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		spec, peer := req.Spec(), req.Peer()
		method, _ := spec.Schema.(protoreflect.MethodDescriptor)
		reqinfo.HeaderOfResponse(ctx)["Observed"] = []string{
			spec.Procedure, spec.StreamType.String(), string(method.FullName()), peer.Addr, peer.Protocol, req.HTTPMethod(), req.Header().Get("Content-Type"),
		}
		return next(ctx, req)
	}
}

// requestState is the context of a request.
type requestState struct {
	context.Context //nolint:containedctx // it is one

	messages codec.Request
	header   http.Header
}

func (s *requestState) Value(key any) any {
	switch key.(type) {
	case reqinfo.Key[*codec.Request]:
		return &s.messages
	case reqinfo.Key[reqinfo.ResponseHeader]:
		return reqinfo.ResponseHeader(s.header)
	}
	return s.Context.Value(key)
}

// call is a request of a test.
type call struct {
	path, method, contentType string
	major                     int
	denied                    bool
	header                    http.Header
	body                      []byte
}

// response is what a client observes: JSON without white space, bodies decompressed, the status of gRPC in the header or trailers.
type response struct {
	status  int
	header  http.Header
	body    string
	message string
}

func (c *call) send(t rapid.TB, h http.Handler) response {
	w := httptest.NewRecorder()
	ctx := context.Background()
	if c.denied {
		ctx = context.WithValue(ctx, deniedKey{}, true)
	}
	r := httptest.NewRequestWithContext(&requestState{Context: ctx, header: w.Header()}, c.method, c.path, bytes.NewReader(c.body))
	r.ProtoMajor = c.major
	maps.Copy(r.Header, c.header)
	if c.contentType != "" {
		r.Header.Set("Content-Type", c.contentType)
	}
	h.ServeHTTP(w, r)
	got := response{status: w.Code, header: make(http.Header), body: w.Body.String()}
	for name, values := range w.Header() {
		name = strings.TrimPrefix(name, http.TrailerPrefix)
		if name != "Content-Length" && name != "Trailer" {
			got.header[name] = values
		}
	}
	got.message = readable(t, got)
	if got.message != "" {
		got.body = ""
	}
	return got
}

// readable returns the content of a body whose encoding may differ, "" for others.
func readable(t rapid.TB, res response) string {
	data := []byte(res.body)
	switch {
	case strings.HasPrefix(res.header.Get("Content-Type"), "application/grpc-web"):
		return ""
	case strings.HasPrefix(res.header.Get("Content-Type"), "application/grpc"):
		return messagesOf(t, data)
	case res.header.Get("Content-Encoding") == "":
		if res.header.Get("Content-Type") == "application/json" {
			return compact(t, data)
		}
		return ""
	}
	data = unzip(t, data)
	if res.header.Get("Content-Type") == "application/json" {
		return "gzip " + compact(t, data)
	}
	return "gzip " + string(data)
}

// messagesOf returns the content of messages with prefixes.
func messagesOf(t rapid.TB, data []byte) (text string) {
	for len(data) > 0 {
		if len(data) < codec.PrefixBytes {
			t.Fatalf("prefix of %d bytes", len(data))
		}
		flag, size := data[0], int(binary.BigEndian.Uint32(data[1:]))
		if flag > 1 || size > len(data)-codec.PrefixBytes {
			t.Fatalf("prefix %v of %d bytes", data[:codec.PrefixBytes], len(data))
		}
		message := data[codec.PrefixBytes:][:size]
		data = data[codec.PrefixBytes+size:]
		if flag == 1 {
			text += "gzip "
			message = unzip(t, message)
		}
		text += string(message) + "\n"
	}
	return text
}

func unzip(t rapid.TB, data []byte) []byte {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if data, err = io.ReadAll(z); err != nil {
		t.Fatal(err)
	}
	return data
}

func compact(t rapid.TB, data []byte) string {
	var text bytes.Buffer
	if err := json.Compact(&text, data); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	return text.String()
}

// drawCall draws a call, of which about half are valid.
func drawCall(t *rapid.T) *call {
	pick := func(name string, values ...string) string { return rapid.SampledFrom(values).Draw(t, name) }
	c := &call{
		path: pick("path", userv1connect.UserServiceGetUserProcedure, userv1connect.UserServiceGetUserProcedure,
			userv1connect.UserServiceStreamUserActivitiesProcedure, userv1connect.UserServicePurgeUserProcedure),
		method:      pick("method", "POST", "POST", "POST", "POST", "POST", "POST", "POST", "PUT"),
		contentType: pick("type", "application/grpc", "application/grpc+proto", "application/grpc+proto", "application/json", "application/proto", "application/grpc+json", "application/grpc-web+proto", "application/proto", "application/json", "application/json; charset=utf-8", "Application/JSON", "text/plain", ""),
		major:       rapid.SampledFrom([]int{2, 2, 2, 1}).Draw(t, "HTTP"),
		denied:      rapid.IntRange(0, 9).Draw(t, "denied") == 0,
		header:      make(http.Header),
	}
	id := rapid.Int64Range(0, waits-1).Draw(t, "id")
	for _, values := range [][]string{
		{"Grpc-Encoding", "", "", "", "identity", "gzip", "br"}, {"Content-Encoding", "", "", "", "identity", "gzip", "br"},
		{"Grpc-Accept-Encoding", "", "gzip", "identity,deflate,gzip", "br", "br gzip"}, {"Accept-Encoding", "", "gzip", "br, gzip", "gzip;q=0", "identity"},
		{"Grpc-Timeout", "", "", "10S", "1H", "1n", "999999999S", "1", "-1S", "+1S", "0S", "5x", "2562048H", "00000001n"},
		{"Connect-Timeout-Ms", "", "", "10000", "+10000", "-1", "x", "12345678901", "0"}, {"Connect-Protocol-Version", "", "1", "2"},
	} {
		if value := pick(values[0], values[1:]...); value != "" && (strings.Contains(values[0], "Accept") || rapid.IntRange(0, 2).Draw(t, "present") == 0) {
			c.header[values[0]] = []string{value}
		}
	}
	texts := rapid.SliceOfN(rapid.SampledFrom([]string{"", "a", strings.Repeat("b", 700), strings.Repeat("c", 1100)}), 0, 3).Draw(t, "texts")
	if c.path != userv1connect.UserServiceStreamUserActivitiesProcedure {
		c.body = drawBody(t, c, &userv1.GetUserRequest{UserId: id, Fields: texts})
		return c
	}
	c.body = drawBody(t, c, &userv1.StreamUserActivitiesRequest{
		UserId: id, Actions: texts, FromHead: rapid.Bool().Draw(t, "header first"), ReplayOnly: rapid.Bool().Draw(t, "trailers"),
	})
	return c
}

func drawBody(t *rapid.T, c *call, message proto.Message) []byte {
	compressed := strings.Contains(c.header.Get("Grpc-Encoding")+c.header.Get("Content-Encoding"), "gzip") && rapid.Bool().Draw(t, "gzip")
	body := encoded(t, c, message, compressed)
	switch rapid.IntRange(0, 9).Draw(t, "fault") {
	case 0:
		body = body[:rapid.IntRange(0, len(body)).Draw(t, "cut")]
	case 1:
		body = append(slices.Clone(body), body...)
	case 2:
		if len(body) > 0 {
			body[rapid.IntRange(0, len(body)-1).Draw(t, "place")] ^= rapid.Byte().Draw(t, "change")
		}
	}
	return body
}

// encoded returns the body of the call with the message.
func encoded(t rapid.TB, c *call, message proto.Message, compressed bool) []byte {
	body, err := proto.Marshal(message)
	if strings.Contains(strings.ToLower(c.contentType), "json") {
		body, err = protojson.Marshal(message)
	}
	if err != nil {
		t.Fatal(err)
	}
	flag := byte(0)
	if compressed {
		flag = 1
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_, _ = z.Write(body)
		_ = z.Close()
		body = packed.Bytes()
	}
	if strings.HasPrefix(c.contentType, "application/grpc") {
		body = append(binary.BigEndian.AppendUint32([]byte{flag}, uint32(len(body))), body...)
	}
	return body
}

// compare fails if the responses of the handlers differ.
func (c *call) compare(t rapid.TB, own, connected http.Handler) {
	got, want := c.send(t, own), c.send(t, connected)
	for _, r := range []*response{&got, &want} {
		if strings.Contains(r.message, "incident") || r.header.Get("Grpc-Status-Details-Bin") != "" && r.header.Get("Grpc-Status") == "13" {
			r.message = ""
			r.header.Del("Grpc-Status-Details-Bin")
		}
		if strings.Contains(r.body, "grpc-status: 13") || strings.Contains(r.body, "grpc-status: 4\r") { // the trailers of gRPC-Web
			r.body = ""
		}
		if r.status == http.StatusGatewayTimeout || r.header.Get("Grpc-Status") == "4" { // perhaps before the RPC was called
			r.header.Del("Etag")
			r.header.Del("Observed")
		}
	}
	if got.status != want.status || got.body != want.body || got.message != want.message || !maps.EqualFunc(got.header, want.header, slices.Equal) {
		t.Fatalf("%+v\n got %+v\nwant %+v", c, got, want)
	}
}

// Clients observe no difference between this package and connect.
func TestSameAsConnect(t *testing.T) {
	own, connected, passed := handlers()
	all := 0
	rapid.Check(t, func(t *rapid.T) {
		for range 10 { // calls are short, and there are many kinds
			all++
			drawCall(t).compare(t, own, connected)
		}
	})
	if *passed > all*9/10 {
		t.Errorf("%d of %d calls were passed to connect", *passed, all)
	}
}

// newCall returns a valid call of GetUser.
func newCall(t *testing.T, contentType, header, value string, req *userv1.GetUserRequest) *call {
	t.Helper()
	c := &call{path: userv1connect.UserServiceGetUserProcedure, method: http.MethodPost, contentType: contentType, major: 2, header: http.Header{header: {value}}}
	c.body = encoded(t, c, req, false)
	return c
}

// Valid calls are not passed to connect, except gRPC over HTTP/1.1.
func TestValidCallsAreServed(t *testing.T) {
	own, connected, passed := handlers()
	for _, row := range []struct{ contentType, header, value string }{
		{"application/grpc", "Grpc-Accept-Encoding", "gzip"},
		{"application/grpc+proto", "Grpc-Timeout", "99999999m"},
		{"application/proto", "Connect-Protocol-Version", "1"},
		{"application/json", "Connect-Timeout-Ms", "9999999999"},
	} {
		for _, major := range []int{1, 2} {
			c := newCall(t, row.contentType, row.header, row.value, &userv1.GetUserRequest{})
			c.major, *passed = major, 0
			c.compare(t, own, connected)
			want := 0
			if major == 1 && strings.HasPrefix(row.contentType, "application/grpc") {
				want = 1
			}
			if *passed != want {
				t.Errorf("%s over HTTP/%d: passed %d calls, want %d", row.contentType, major, *passed, want)
			}
		}
	}
}

// A valid server stream of gRPC is not passed to connect.
func TestValidStreamIsServed(t *testing.T) {
	own, connected, passed := handlers()
	c := &call{
		path: userv1connect.UserServiceStreamUserActivitiesProcedure, method: http.MethodPost, contentType: "application/grpc", major: 2,
		header: http.Header{"Grpc-Accept-Encoding": {"gzip"}},
	}
	c.body = encoded(t, c, &userv1.StreamUserActivitiesRequest{Actions: []string{"a", strings.Repeat("b", codec.CompressMinBytes)}}, false)
	if c.compare(t, own, connected); *passed != 0 {
		t.Errorf("passed %d streams, want 0", *passed)
	}
}

// A call ends at the timeout of the client.
func TestTimeoutOfClient(t *testing.T) {
	own, connected, _ := handlers()
	for _, row := range [][3]string{
		{"application/grpc", "Grpc-Timeout", "1m"}, {"application/proto", "Connect-Timeout-Ms", "1"}, {"application/json", "Connect-Timeout-Ms", "1"},
	} {
		newCall(t, row[0], row[1], row[2], &userv1.GetUserRequest{UserId: waits}).compare(t, own, connected)
	}
}

// Responses are compressed from the same size on as with connect.
func TestCompressedFromSameSize(t *testing.T) {
	own, connected, _ := handlers()
	for _, row := range [][2]string{
		{"application/grpc", "Grpc-Accept-Encoding"}, {"application/proto", "Accept-Encoding"}, {"application/json", "Accept-Encoding"},
	} {
		for size := codec.CompressMinBytes - 64; size <= codec.CompressMinBytes; size++ {
			newCall(t, row[0], row[1], "gzip", &userv1.GetUserRequest{Fields: []string{strings.Repeat("b", size)}}).compare(t, own, connected)
		}
	}
}

// Every unary RPC is served.
func TestAllMethods(t *testing.T) {
	methods := rpc.UserService(fake{})
	all := userv1.File_user_v1_user_service_proto.Services().ByName("UserService").Methods()
	count := 0
	for i := range all.Len() {
		if method := all.Get(i); !method.IsStreamingClient() && !method.IsStreamingServer() {
			count++
			if methods["/user.v1.UserService/"+string(method.Name())] == nil {
				t.Errorf("%s is missing", method.Name())
			}
		}
	}
	if len(methods) != count {
		t.Errorf("got %d methods, want %d", len(methods), count)
	}
}
