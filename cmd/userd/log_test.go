package main_test

import (
	"context"
	"fmt"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// logRun writes randomly over several connections while readers stall, disconnect and resume
// and the server restarts. Each reader must receive exactly the log.
type logRun struct {
	program  program
	rows     int64 // minimum number of rows to write
	restarts int
	writers  int
	readers  int // readers of the whole log; also the number of readers of one user
	seed     uint64

	followed []int64 // users that are written and read, never deleted

	restarted
}

const endAction = "test.end"

func TestReadersReceiveExactlyTheLog(t *testing.T) {
	t.Parallel()
	run := logRun{
		program: program{dir: t.TempDir()}, rows: int64(longer(4000)), restarts: 3,
		writers: 4, readers: 4, seed: uint64(time.Now().UnixNano()),
	}
	t.Logf("seed %d", run.seed)
	if err := run.run(t); err != nil {
		t.Fatalf("seed %d: %v\n%s", run.seed, err, run.process().output)
	}
}

func TestLogTestDetectsInjectedFaults(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"drop-at-seam", "publish-early"} {
		t.Run(fault, func(t *testing.T) {
			run := logRun{
				program: program{dir: t.TempDir(), fault: fault}, rows: 5_000, restarts: 1,
				writers: 4, readers: 2, seed: 1,
			}
			err := run.run(t)
			if err == nil {
				t.Fatal("injected fault was not detected")
			}
			t.Logf("found: %v", err)
		})
	}
}

func (r *logRun) run(t testing.TB) error {
	ctx := within(t, time.Duration(longer(5))*time.Minute)
	r.begin(r.program.start(t))
	if err := r.createFollowed(ctx, t); err != nil {
		return err
	}
	all, working := errgroup.WithContext(ctx)
	readers := r.startReaders(working, t, all)
	all.Go(func() error { return r.probe(working, t) })
	all.Go(func() error { return r.writeAll(working, t) })
	if err := all.Wait(); err != nil {
		return err
	}
	return r.compare(ctx, t, readers)
}

// writeAll runs the writers, restarts the server concurrently, and writes the last rows.
func (r *logRun) writeAll(ctx context.Context, t testing.TB) error {
	writers, writing := errgroup.WithContext(ctx)
	for i := range r.writers {
		writers.Go(func() error { return r.write(writing, t, rand.New(rand.NewPCG(r.seed, uint64(i)))) })
	}
	writers.Go(func() error { return r.restartAll(writing, t, r.program, r.restarts, r.rows) })
	if err := writers.Wait(); err != nil {
		return err
	}
	r.finished.Store(true)
	r.signal()
	return r.end(ctx, t)
}

func (r *logRun) createFollowed(ctx context.Context, t testing.TB) error {
	client := r.process().client(t, 1<<20)
	for i := range r.readers {
		resp, err := client.CreateUser(ctx, &userv1.CreateUserRequest{
			Username: fmt.Sprintf("followed %d", i), Email: fmt.Sprintf("followed%d@example.org", i),
		})
		if err != nil {
			return err
		}
		r.followed = append(r.followed, resp.GetUser().GetUserId())
	}
	return nil
}

// write makes random changes until enough rows are written.
func (r *logRun) write(ctx context.Context, t testing.TB, random *rand.Rand) error {
	p := r.process()
	client := p.client(t, 1<<20)
	for r.written.Load() < r.rows {
		rows, err := r.change(ctx, client, random)
		if err != nil && !broken(err) {
			return fmt.Errorf("write: %w", err)
		}
		if err != nil {
			if p, err = r.after(ctx, p); err != nil {
				return err
			}
			client = p.client(t, 1<<20)
			continue
		}
		r.written.Add(rows)
		r.signal()
	}
	return nil
}

// change makes a random call and returns the minimum number of rows written.
func (r *logRun) change(ctx context.Context, client userv1connect.UserServiceClient, random *rand.Rand) (int64, error) {
	id := r.followed[random.IntN(len(r.followed))]
	switch random.IntN(4) {
	case 0:
		return 1, record(ctx, client, id, "test.noted", strings.Repeat("x", random.IntN(1000)))
	case 1:
		req := &userv1.CreateUsersRequest{}
		for range 1 + random.IntN(40) {
			name := strconv.FormatUint(random.Uint64(), 36)
			req.Requests = append(req.Requests, &userv1.CreateUserRequest{Username: "u-" + name, Email: name + "@example.org"})
		}
		_, err := client.CreateUsers(ctx, req)
		return int64(len(req.Requests)), err
	case 2:
		req := &userv1.UpdateUsersRequest{Atomic: true}
		for _, id := range r.followed {
			req.Requests = append(req.Requests, &userv1.UpdateUserRequest{UserId: id, User: &userv1.User{
				Status: userv1.UserStatus(1 + random.IntN(3)), Tags: []string{strconv.FormatUint(random.Uint64(), 36)},
			}})
		}
		_, err := client.UpdateUsers(ctx, req)
		return int64(len(req.Requests)), err
	default:
		_, err := client.UpdateUserStatus(ctx, &userv1.UpdateUserStatusRequest{
			UserId: id, Status: userv1.UserStatus(1 + random.IntN(3)),
		})
		return 0, err
	}
}

func record(ctx context.Context, client userv1connect.UserServiceClient, id int64, action, note string) error {
	_, err := client.RecordUserActivity(ctx, &userv1.RecordUserActivityRequest{
		UserId: id, Action: action, Details: map[string]string{"note": note},
	})
	return err
}

// end writes a last row for each user that is read.
func (r *logRun) end(ctx context.Context, t testing.TB) error {
	client := r.process().client(t, 1<<20)
	for _, id := range r.followed {
		if err := record(ctx, client, id, endAction, "end"); err != nil {
			return err
		}
	}
	return nil
}

// probe checks that a published position can be read.
func (r *logRun) probe(ctx context.Context, t testing.TB) error {
	p := r.process()
	client := p.client(t, 1<<20)
	for !r.finished.Load() {
		published, head, err := probeOnce(ctx, client, r.followed[0])
		switch {
		case err != nil && broken(err):
			if p, err = r.after(ctx, p); err != nil {
				return err
			}
			client = p.client(t, 1<<20)
		case err != nil:
			return fmt.Errorf("probe: %w", err)
		case head < published:
			return fmt.Errorf("position %d was published, but the log ends at %d", published, head)
		}
	}
	return nil
}

func probeOnce(ctx context.Context, client userv1connect.UserServiceClient, id int64) (published, head int64, err error) {
	calling, info := connect.NewClientContext(ctx)
	if _, err := client.GetUser(calling, &userv1.GetUserRequest{UserId: id}); err != nil {
		return 0, 0, err
	}
	_, number, _ := strings.Cut(info.ResponseHeader().Get("Userd-Position"), ":")
	if published, err = strconv.ParseInt(number, 10, 64); err != nil {
		return 0, 0, fmt.Errorf("header Userd-Position: %w", err)
	}
	list, err := client.ListUserActivities(ctx, &userv1.ListUserActivitiesRequest{PageSize: 1})
	if err != nil {
		return 0, 0, err
	}
	return published, list.GetActivities()[0].GetActivityId(), nil
}

// logReader reads the whole log (user 0) or the log of one user.
type logReader struct {
	run    *logRun
	user   int64
	random *rand.Rand
	epoch  string
	rows   []readRow
}

type readRow struct {
	position int64
	sum      uint64
}

var rowSeed = maphash.MakeSeed()

func sumRow(row *userv1.UserActivity) readRow {
	var h maphash.Hash
	h.SetSeed(rowSeed)
	_, _ = fmt.Fprint(&h, row.GetUserId(), row.GetAction(), row.GetTimestamp().AsTime().UnixNano())
	for _, key := range slices.Sorted(maps.Keys(row.GetDetails())) {
		_, _ = fmt.Fprintf(&h, "%q=%q", key, row.GetDetails()[key])
	}
	return readRow{position: row.GetActivityId(), sum: h.Sum64()}
}

func (r *logRun) startReaders(ctx context.Context, t testing.TB, all *errgroup.Group) []*logReader {
	var readers []*logReader
	for i := range 2 * r.readers {
		reader := &logReader{run: r, random: rand.New(rand.NewPCG(r.seed, uint64(1000+i)))}
		if i >= r.readers {
			reader.user = r.followed[i-r.readers]
		}
		readers = append(readers, reader)
		all.Go(func() error {
			if err := reader.read(ctx, t); err != nil {
				return fmt.Errorf("reader %d (user %d) at position %d: %w", i, reader.user, reader.last(), err)
			}
			return nil
		})
	}
	return readers
}

func (r *logReader) last() int64 {
	if len(r.rows) == 0 {
		return 0
	}
	return r.rows[len(r.rows)-1].position
}

// read opens streams, each after the last row received.
func (r *logReader) read(ctx context.Context, t testing.TB) error {
	p := r.run.process()
	for {
		done, err := r.stream(ctx, p.client(t, 1<<16))
		if done {
			return nil
		}
		if err != nil && !broken(err) {
			return err
		}
		if p, err = r.run.after(ctx, p); err != nil {
			return err
		}
	}
}

// stream reads to the end of the log, until the stream fails, or cancels it at random.
func (r *logReader) stream(ctx context.Context, client userv1connect.UserServiceClient) (done bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{
		UserId: r.user, AfterActivityId: r.last(), Epoch: r.epoch,
	})
	if err != nil {
		return false, err
	}
	breakOff := 1 + r.random.IntN(5000)
	for range breakOff {
		if !stream.Receive() {
			return false, stream.Err()
		}
		if r.epoch == "" {
			r.epoch, _, _ = strings.Cut(stream.ResponseHeader().Get("Userd-Position"), ":")
		}
		row := stream.Msg()
		if row.GetActivityId() <= r.last() || r.user == 0 && row.GetActivityId() != r.last()+1 {
			return false, fmt.Errorf("row %d received after row %d", row.GetActivityId(), r.last())
		}
		r.rows = append(r.rows, sumRow(row))
		if row.GetAction() == endAction && (r.user != 0 || row.GetUserId() == r.run.followed[len(r.run.followed)-1]) {
			return true, nil
		}
		if r.random.IntN(2000) == 0 { // stall until the buffers are full
			if err := r.run.waitWritten(ctx, r.run.written.Load()+r.run.rows/8); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// compare compares the rows of the readers with the log.
func (r *logRun) compare(ctx context.Context, t testing.TB, readers []*logReader) error {
	log := make(map[int64][]readRow) // by user; 0: all users
	client := r.process().client(t, 1<<20)
	req := &userv1.ListUserActivitiesRequest{PageSize: 1000, Order: userv1.ActivityOrder_ACTIVITY_ORDER_OLDEST_FIRST}
	var last time.Time
	for {
		page, err := client.ListUserActivities(ctx, req)
		if err != nil {
			return err
		}
		for _, row := range page.GetActivities() {
			if want := int64(len(log[0]) + 1); row.GetActivityId() != want {
				return fmt.Errorf("log position = %d, want %d", row.GetActivityId(), want)
			}
			at := row.GetTimestamp().AsTime()
			if at.Before(last) {
				return fmt.Errorf("time of row %d is before that of the previous row", row.GetActivityId())
			}
			last = at
			log[0] = append(log[0], sumRow(row))
			log[row.GetUserId()] = append(log[row.GetUserId()], sumRow(row))
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	t.Logf("the log has %d rows", len(log[0]))
	for _, reader := range readers {
		if !slices.Equal(reader.rows, log[reader.user]) {
			return fmt.Errorf("reader of user %d received %d rows, log has %d, or contents differ",
				reader.user, len(reader.rows), len(log[reader.user]))
		}
	}
	return nil
}
