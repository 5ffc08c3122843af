package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// The benchmarks run userd and its clients on the same machine. A filled store is created once
// with BatchCreateUsers and kept in the temporary directory.

const manyUsers = 1_000_000

// BenchmarkFirstResponse measures the time from the start on a store with a million users to
// the first response, and the resident memory then.
func BenchmarkFirstResponse(b *testing.B) {
	dir, ids := filled(b)
	build(b, "")
	var memory int64
	for b.Loop() {
		p := program{dir: dir}.start(b)
		if _, err := p.client(b, 1<<20).GetUser(b.Context(), &userv1.GetUserRequest{UserId: ids[0]}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		memory = max(memory, residentBytes(b, p))
		p.terminate(b)
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/start")
	b.ReportMetric(float64(memory)/(1<<20), "MiB")
}

// BenchmarkGetUser reads random users of a million.
func BenchmarkGetUser(b *testing.B) {
	dir, ids := filled(b)
	p := program{dir: dir}.start(b)
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			spread(b, p, callers, func(ctx context.Context, client userv1connect.UserServiceClient, _ int) error {
				_, err := client.GetUser(ctx, &userv1.GetUserRequest{UserId: ids[rand.IntN(len(ids))]})
				return err
			})
		})
	}
	b.ReportMetric(float64(residentBytes(b, p))/(1<<20), "MiB")
}

// BenchmarkListUsers reads pages at the start and in the middle of a million users, to show that
// the cost does not grow with the depth.
func BenchmarkListUsers(b *testing.B) {
	dir, _ := filled(b)
	p := program{dir: dir}.start(b)
	client := p.client(b, 1<<20)
	deep := deepToken(b, client)
	for name, token := range map[string]string{"first": "", "deep": deep} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				_, err := client.ListUsers(b.Context(), &userv1.ListUsersRequest{PageSize: 100, OrderBy: "username", PageToken: token})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// deepToken returns a page token after a tenth of the users.
func deepToken(b *testing.B, client userv1connect.UserServiceClient) string {
	token := ""
	for range manyUsers / 10 / 1000 {
		page, err := client.ListUsers(b.Context(), &userv1.ListUsersRequest{PageSize: 1000, OrderBy: "username", PageToken: token})
		if err != nil {
			b.Fatal(err)
		}
		token = page.GetNextPageToken()
	}
	return token
}

// BenchmarkCreateUser measures the rate of creates, and the sync rate of the disk.
func BenchmarkCreateUser(b *testing.B) {
	for _, callers := range []int{1, 8, 64, 512} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			dir := b.TempDir()
			syncs := syncRate(b, dir)
			p := program{dir: dir}.start(b)
			run := strconv.FormatInt(time.Now().UnixNano(), 36)
			spread(b, p, callers, func(ctx context.Context, client userv1connect.UserServiceClient, i int) error {
				_, err := client.CreateUser(ctx, newUser(run, i))
				return err
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creates/s")
			b.ReportMetric(syncs, "syncs/s")
		})
	}
}

// BenchmarkImport measures sequential BatchCreateUsers streams.
func BenchmarkImport(b *testing.B) {
	dir := b.TempDir()
	syncs := syncRate(b, dir)
	p := program{dir: dir}.start(b)
	client := p.client(b, 1<<20)
	before := processorTime(b, p)
	b.ResetTimer()
	importUsers(b, client, b.N)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "items/s")
	b.ReportMetric(float64((processorTime(b, p)-before).Nanoseconds())/float64(b.N)/1e3, "server-µs/item")
	b.ReportMetric(syncs, "syncs/s")
}

// BenchmarkBatchUpdate measures BatchUpdateUsers of random users of a million.
func BenchmarkBatchUpdate(b *testing.B) {
	dir, ids := filled(b)
	client := program{dir: dir}.start(b).client(b, 1<<20)
	b.ResetTimer()
	updateUsers(b, client, b.N, func(int) *userv1.UpdateUserRequest {
		return &userv1.UpdateUserRequest{
			UserId: ids[rand.IntN(len(ids))], User: &userv1.User{Tags: []string{strconv.FormatUint(rand.Uint64(), 36)}},
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "items/s")
}

// BenchmarkReplay replays the activities of one user to one gRPC client.
func BenchmarkReplay(b *testing.B) {
	const rows = 200_000
	p := program{dir: b.TempDir()}.start(b)
	client := p.client(b, 4<<20)
	one, err := client.CreateUser(b.Context(), newUser("replay", 0))
	if err != nil {
		b.Fatal(err)
	}
	id := one.GetUser().GetUserId()
	updateUsers(b, client, rows, func(i int) *userv1.UpdateUserRequest {
		return &userv1.UpdateUserRequest{UserId: id, User: &userv1.User{Tags: []string{strconv.Itoa(i)}}}
	})
	before := processorTime(b, p)
	total := 0
	b.ResetTimer()
	for b.Loop() {
		stream, err := client.StreamUserActivities(b.Context(), &userv1.StreamUserActivitiesRequest{UserId: id, ReplayOnly: true})
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for stream.Receive() {
			n++
		}
		if err := stream.Err(); err != nil || n != rows+1 {
			b.Fatalf("%d rows: %v", n, err)
		}
		total += n
	}
	b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64((processorTime(b, p)-before).Nanoseconds())/float64(total)/1e3, "server-µs/row")
}

// BenchmarkStatusFanOut changes the status of a user that 1000 streams on 10 connections follow, and waits until all have received the
// change. Changes of a user that 250 of them follow give the part of a delivery alone, and that of a change without followers.
func BenchmarkStatusFanOut(b *testing.B) {
	const connections, streams, some = 10, 100, 25
	p := program{dir: b.TempDir()}.start(b)
	client := p.client(b, 1<<20)
	byAll, bySome := createUser(b, client, "all"), createUser(b, client, "some")
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	received := make(chan struct{}, connections*(streams+some))
	var followers sync.WaitGroup
	for range connections {
		client := connected(b, p)
		for i := range streams {
			ids := []int64{byAll, bySome}
			if i >= some {
				ids = ids[:1]
			}
			followers.Go(func() { follow(ctx, b, client, ids, received) })
		}
	}
	for range connections * (streams + some) { // the current statuses
		<-received
	}
	// change makes b.N changes, each delivered to a number of streams, and returns the CPU time of the server in µs per change.
	change := func(id int64, deliveries int) float64 {
		before := processorTime(b, p)
		for i := range b.N {
			_, err := client.UpdateUserStatus(ctx, &userv1.UpdateUserStatusRequest{UserId: id, Status: userv1.UserStatus(2 + i%2)})
			if err != nil {
				b.Fatal(err)
			}
			for range deliveries {
				<-received
			}
		}
		return float64((processorTime(b, p) - before).Microseconds()) / float64(b.N)
	}
	toSome := change(bySome, connections*some)
	b.ResetTimer()
	toAll := change(byAll, connections*streams)
	b.StopTimer()
	alone := (toAll - toSome) / (connections * (streams - some))
	b.ReportMetric(float64(b.N*connections*streams)/b.Elapsed().Seconds(), "deliveries/s")
	b.ReportMetric(toAll/(connections*streams), "server-µs/delivery")
	b.ReportMetric(alone, "marginal-µs/delivery")
	b.ReportMetric(toSome-alone*connections*some, "fixed-µs/change")
	cancel()
	followers.Wait()
}

func createUser(b *testing.B, client userv1connect.UserServiceClient, name string) (id int64) {
	b.Helper()
	created, err := client.CreateUser(b.Context(), newUser(name, 0))
	if err != nil {
		b.Fatal(err)
	}
	return created.GetUser().GetUserId()
}

// follow receives the statuses of users until the end of ctx.
func follow(ctx context.Context, b *testing.B, client userv1connect.UserServiceClient, ids []int64, received chan<- struct{}) {
	stream, err := client.SyncUserStatus(ctx)
	if err != nil {
		b.Error(err)
		return
	}
	for _, id := range ids {
		if err := stream.Send(&userv1.UserStatusUpdate{UserId: id}); err != nil {
			b.Error(err)
			return
		}
	}
	// net/http ignores the context while it reads a body.
	defer context.AfterFunc(ctx, func() { _ = stream.CloseRequest() })()
	for {
		if _, err := stream.Receive(); err != nil {
			return // end of the benchmark
		}
		received <- struct{}{}
	}
}

// BenchmarkIdleStreams measures the memory of 10,000 streams on 10 connections, each of another
// user.
func BenchmarkIdleStreams(b *testing.B) {
	const connections, streams = 10, 1000
	for b.Loop() {
		p := program{dir: b.TempDir()}.start(b)
		client := p.client(b, 1<<20)
		importUsers(b, client, connections*streams)
		ids := userIDs(b, client)
		before := residentBytes(b, p)
		ctx, cancel := context.WithCancel(b.Context())
		var open errgroup.Group
		for i := range connections {
			client := connected(b, p)
			for j := range streams {
				id := ids[i*streams+j]
				open.Go(func() error {
					stream, err := client.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{UserId: id})
					if err == nil && !stream.Receive() { // the user.created row
						err = stream.Err()
					}
					return err
				})
			}
		}
		if err := open.Wait(); err != nil {
			b.Fatal(err)
		}
		grown := residentBytes(b, p) - before
		b.ReportMetric(float64(grown)/(connections*streams)/1024, "KiB/stream")
		cancel()
		p.kill()
	}
}

// spread makes b.N calls from concurrent callers, over at most eight connections.
func spread(b *testing.B, p *process, callers int, call func(context.Context, userv1connect.UserServiceClient, int) error) {
	clients := connectedClients(b, p, callers)
	before := processorTime(b, p)
	b.ResetTimer()
	err := share(callers, b.N, func(caller, i int) error {
		return call(b.Context(), clients[caller%len(clients)], i)
	})
	if err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	b.ReportMetric(float64((processorTime(b, p)-before).Nanoseconds())/float64(b.N)/1e3, "server-µs/call")
}

// connectedClients returns a client for each caller, with at most eight connections in total.
func connectedClients(b *testing.B, p *process, callers int) []userv1connect.UserServiceClient {
	clients := make([]userv1connect.UserServiceClient, min(callers, 8))
	for i := range clients {
		clients[i] = connected(b, p)
	}
	return clients
}

// share distributes n calls over the callers.
func share(callers, n int, call func(caller, i int) error) error {
	var next atomic.Int64
	var all errgroup.Group
	for caller := range callers {
		all.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				if err := call(caller, i); err != nil {
					return err
				}
			}
		})
	}
	return all.Wait()
}

// connected returns a client with an open connection, so that concurrent calls share it.
func connected(b *testing.B, p *process) userv1connect.UserServiceClient {
	client := p.client(b, 1<<20)
	if _, err := client.ListUsers(b.Context(), &userv1.ListUsersRequest{PageSize: 1}); err != nil {
		b.Fatal(err)
	}
	return client
}

func newUser(run string, i int) *userv1.CreateUserRequest {
	name := run + "-" + strconv.Itoa(i)
	return &userv1.CreateUserRequest{
		Username: "user " + name, Email: name + "@example.org", Tags: []string{"bench"},
	}
}

// importUsers creates n users in streams of at most 100,000.
func importUsers(b testing.TB, client userv1connect.UserServiceClient, n int) {
	run := strconv.FormatUint(rand.Uint64(), 36)
	for at := 0; at < n; at += 100_000 {
		stream, err := client.BatchCreateUsers(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		for i := at; i < min(at+100_000, n); i++ {
			if err := stream.Send(&userv1.BatchCreateUsersRequest{User: newUser(run, i)}); err != nil {
				b.Fatal(err)
			}
		}
		resp, err := stream.CloseAndReceive()
		if err != nil {
			b.Fatal(err)
		}
		if resp.GetFailedCount() != 0 {
			b.Fatalf("%d items failed, first: %v", resp.GetFailedCount(), resp.GetFailures()[0])
		}
	}
}

// updateUsers makes n updates in streams of at most 100,000.
func updateUsers(b testing.TB, client userv1connect.UserServiceClient, n int, item func(i int) *userv1.UpdateUserRequest) {
	for at := 0; at < n; at += 100_000 {
		stream, err := client.BatchUpdateUsers(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		for i := at; i < min(at+100_000, n); i++ {
			if err := stream.Send(item(i)); err != nil {
				b.Fatal(err)
			}
		}
		resp, err := stream.CloseAndReceive()
		if err != nil {
			b.Fatal(err)
		}
		if resp.GetFailedCount() != 0 {
			b.Fatalf("%d items failed, first: %v", resp.GetFailedCount(), resp.GetFailures()[0])
		}
	}
}

func userIDs(b testing.TB, client userv1connect.UserServiceClient) []int64 {
	var ids []int64
	req := &userv1.ListUsersRequest{PageSize: 1000}
	for {
		page, err := client.ListUsers(b.Context(), req)
		if err != nil {
			b.Fatal(err)
		}
		for _, u := range page.GetUsers() {
			ids = append(ids, u.GetUserId())
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			return ids
		}
	}
}

// filled returns the directory of a store with a million users, and a thousand of their IDs.
func filled(b testing.TB) (dir string, ids []int64) {
	b.Helper()
	dir = filepath.Join(os.TempDir(), "userservice-bench-"+strconv.Itoa(manyUsers))
	list := filepath.Join(dir, "ids")
	if text, err := os.ReadFile(list); err == nil {
		for _, field := range strings.Fields(string(text)) {
			id, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			ids = append(ids, id)
		}
		return dir, ids
	}
	if err := os.RemoveAll(dir); err != nil {
		b.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	p := program{dir: dir}.start(b)
	began := time.Now()
	importUsers(b, p.client(b, 1<<20), manyUsers)
	b.Logf("imported %d users in %s", manyUsers, time.Since(began).Round(time.Millisecond))
	var text strings.Builder
	for i, id := range userIDs(b, p.client(b, 1<<20)) {
		if i%1000 == 0 {
			ids = append(ids, id)
			fmt.Fprintln(&text, id)
		}
	}
	p.terminate(b)
	if err := os.WriteFile(list, []byte(text.String()), 0o644); err != nil {
		b.Fatal(err)
	}
	return dir, ids
}

// syncRate measures the synced 4 KiB appends per second of the disk.
func syncRate(b testing.TB, dir string) float64 {
	b.Helper()
	f, err := os.Create(filepath.Join(dir, "syncs"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	block := make([]byte, 4096)
	n, began := 0, time.Now()
	for ; time.Since(began) < 500*time.Millisecond; n++ {
		if _, err := f.Write(block); err != nil {
			b.Fatal(err)
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
	}
	return float64(n) / time.Since(began).Seconds()
}

// residentBytes returns the resident set size of the process.
func residentBytes(b testing.TB, p *process) int64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// processorTime returns the CPU time of the process.
func processorTime(b testing.TB, p *process) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')'):]))
	var ticks int64
	for _, field := range fields[12:14] { // utime and stime, see proc(5)
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100)
}
