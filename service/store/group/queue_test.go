package group

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/store/decide"
	"github.com/yourorg/userservice/service/user"
)

// numbered returns a batch of n changes with numbers from first.
func numbered(first int64, n int) (b user.Batch) {
	for i := range int64(n) {
		b.Changes = append(b.Changes, user.Change{Op: &user.ReadBarrier{ID: first + i}})
	}
	return b
}

// applied sets the results of a group, with the numbers of the changes as positions, and returns the numbers.
func applied(g *Group[any]) (numbers []int64) {
	for _, p := range g.Parts {
		if p.Job != nil {
			p.Err = p.Job(nil)
			continue
		}
		for i := p.From; i < p.To; i++ {
			id := p.Batch.Changes[i].Op.Target()
			p.Results[i] = user.Result{Position: id}
			numbers = append(numbers, id)
		}
	}
	return numbers
}

func positions(results []user.Result) (list []int64) {
	for _, r := range results {
		list = append(list, r.Position)
	}
	return list
}

func newGroup(q *Queue[any]) *Group[any] { return &Group[any]{queue: q, units: make(map[string]int)} }

// checkEmpty checks that nothing of the capacity is still used.
func checkEmpty(t interface{ Fatalf(string, ...any) }, q *Queue[any]) {
	if !q.capacity.TryAcquire(QueueBytes) {
		t.Fatalf("the capacity of the queue is still used, want it to be free")
	}
	if len(q.shares) != 0 || q.items.Len() != 0 {
		t.Fatalf("%d callers have shares, and %d items are queued, want none", len(q.shares), q.items.Len())
	}
}

// Each change is applied once, those of a caller in their order, an atomic batch in one group. Groups have at most their
// limit of units, and results are those of the changes. A failed group fails its changes and the rest of their batches.
func TestRandomGroups(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		opts := Options{TurnUnits: rapid.IntRange(1, 4).Draw(r, "turn"), MaxUnits: rapid.IntRange(4, 8).Draw(r, "max")}
		q := NewQueue[any](opts)
		queued := submitRandomly(r, q)
		g := newGroup(q)
		order := make(map[string][]int64) // of the committed changes, by caller
		want := make(map[int64]error)     // nil: committed
		for q.items.Callers() > 0 {
			for g.Take() && rapid.IntRange(0, 9).Draw(r, "stop") > 0 {
			}
			checkGroup(r, g, opts)
			numbers := applied(g)
			if rapid.IntRange(0, 3).Draw(r, "fail") == 0 {
				for _, n := range numbers {
					want[n] = errChange
				}
				g.Fail(errChange, errRest)
			} else {
				for _, p := range g.Parts {
					for i := p.From; i < p.To; i++ {
						order[p.Caller] = append(order[p.Caller], p.Batch.Changes[i].Op.Target())
					}
				}
				for _, n := range numbers {
					want[n] = nil
				}
				g.Complete()
			}
			g.reset()
		}
		for caller, numbers := range order {
			if !slices.IsSorted(numbers) {
				r.Fatalf("changes of %s were applied in the order %v", caller, numbers)
			}
		}
		for _, s := range queued {
			s.check(r, want)
		}
		checkEmpty(r, q)
	})
}

// Errors of a failed group: of the changes in it, and of the rest of their batches.
var errChange, errRest = errors.New("change"), errors.New("rest")

// checkGroup checks the parts of a group, and the number of their changes.
func checkGroup(r *rapid.T, g *Group[any], opts Options) {
	changes, whole := 0, false
	for _, p := range g.Parts {
		changes += p.To - p.From
		whole = whole || p.Batch.Atomic
		if p.Batch.Atomic && (p.From != 0 || p.To != len(p.Batch.Changes)) {
			r.Fatalf("part [%d, %d) of an atomic batch of %d changes, want all", p.From, p.To, len(p.Batch.Changes))
		}
		if n := p.To - p.From; !p.Batch.Atomic && n > opts.TurnUnits || n == 0 && len(p.Batch.Changes) > 0 {
			r.Fatalf("part of %d changes, want 1 to %d", n, opts.TurnUnits)
		}
	}
	if g.Changes != changes || !whole && g.Changes > opts.MaxUnits {
		r.Fatalf("Changes = %d of parts with %d, want at most %d", g.Changes, changes, opts.MaxUnits)
	}
}

// submission is a batch or a job in the queue.
type submission struct {
	pending *user.Pending
	batch   user.Batch
	ended   error // of its context
	ran     *int  // number of runs of a job
}

func submitRandomly(r *rapid.T, q *Queue[any]) (queued []*submission) {
	next := int64(1)
	for range rapid.IntRange(1, 8).Draw(r, "submissions") {
		ctx := user.WithCaller(r.Context(), rapid.SampledFrom([]string{"a", "b", "c"}).Draw(r, "caller"))
		if rapid.IntRange(0, 4).Draw(r, "job") == 0 {
			s := &submission{ran: new(int)}
			var end func([]user.Result, error)
			s.pending, end = user.NewPending()
			if err := q.Go(func(any) error { *s.ran++; return nil }, func(err error) { end(nil, err) }); err != nil {
				r.Fatal(err)
			}
			queued = append(queued, s)
			continue
		}
		s := &submission{batch: numbered(next, rapid.IntRange(0, 10).Draw(r, "changes"))}
		s.batch.Atomic = rapid.IntRange(0, 3).Draw(r, "atomic") == 0
		next += int64(len(s.batch.Changes))
		canceled, cancel := context.WithCancelCause(ctx)
		r.Cleanup(func() { cancel(nil) })
		s.pending = q.Submit(canceled, s.batch)
		if rapid.IntRange(0, 5).Draw(r, "cancel") == 0 {
			s.ended = fmt.Errorf("canceled %d", next)
			cancel(s.ended)
		}
		queued = append(queued, s)
	}
	return queued
}

// check checks the result of a submission. want has the results of the changes that were taken.
func (s *submission) check(r *rapid.T, want map[int64]error) {
	select {
	case <-s.pending.Done():
	default:
		r.Fatalf("a submission is not complete: %+v", s)
	}
	results, err := s.pending.Wait(r.Context())
	if s.ran != nil {
		if *s.ran != 1 || err != nil && !errors.Is(err, errRest) {
			r.Fatalf("a job ran %d times with error %v, want once and %v or none", *s.ran, err, errRest)
		}
		return
	}
	if s.ended != nil {
		if !errors.Is(err, s.ended) || len(results) > 0 {
			r.Fatalf("result of a canceled batch = %v, %v, want %v", results, err, s.ended)
		}
		return
	}
	for i, c := range s.batch.Changes {
		got := user.Result{Err: err}
		if err == nil {
			got = results[i]
		}
		wantErr, taken := want[c.Op.Target()]
		if !taken {
			if wantErr = errRest; err != nil {
				wantErr = errChange // no change of the batch was committed
			}
		}
		if !errors.Is(got.Err, wantErr) || wantErr == nil && got.Position != c.Op.Target() {
			r.Fatalf("result %d of %+v = %+v, %v, want error %v", i, s.batch, results, err, wantErr)
		}
	}
}

// A caller has one turn in a group if another caller has written within a second, or waits; otherwise it has the whole
// group.
func TestCallerThatIsAloneHasWholeGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue[any](Options{TurnUnits: 2, MaxUnits: 6})
		g := newGroup(q)
		sizes := func() (sizes []int) {
			t.Helper()
			for q.items.Callers() > 0 {
				for g.Take() {
				}
				sizes = append(sizes, g.Changes)
				applied(g)
				g.Complete()
				g.reset()
			}
			return sizes
		}
		submit := func(caller string, n int) { q.Submit(user.WithCaller(t.Context(), caller), numbered(1, n)) }
		check := func(when string, want ...int) {
			t.Helper()
			if got := sizes(); !slices.Equal(got, want) {
				t.Errorf("%s: groups of %v changes, want %v", when, got, want)
			}
		}
		submit("a", 13)
		check("no other caller", 6, 6, 1)
		if err := q.Go(func(any) error { return nil }, func(error) {}); err != nil {
			t.Fatal(err)
		}
		check("a job", 0)
		submit("a", 7)
		check("no other caller but a job", 6, 1)
		submit("a", 5)
		submit("b", 1)
		check("another caller waits", 3, 2, 1)
		time.Sleep(aloneAfter)
		submit("b", 5)
		check("another caller was the last one", 2, 2, 1)
		time.Sleep(aloneAfter - 1)
		submit("b", 3)
		check("another caller wrote within a second", 2, 1)
		time.Sleep(time.Nanosecond)
		submit("b", 8)
		check("no other caller for a second", 6, 2)
	})
}

// A part that is applied again starts from the results of the parts before it.
func TestRestart(t *testing.T) {
	u := &user.User{Username: "ann"}
	p := Part[any]{Item: &Item[any]{Results: []user.Result{{User: u}, {}, {User: u}, {User: u}}, UserBytes: 1, Err: errors.New("old")}, From: 3, To: 4}
	p.Restart()
	if want := 2 * u.Size(); p.UserBytes != want || p.Err != nil {
		t.Errorf("UserBytes = %d, error %v, want %d, none", p.UserBytes, p.Err, want)
	}
}

// run applies groups until the test ends.
func run(t *testing.T, q *Queue[any], apply func(*Group[any])) {
	t.Helper()
	go q.Run(func(g *Group[any]) {
		for g.Take() {
		}
		apply(g)
	})
	t.Cleanup(func() { q.Close() })
}

func TestQueue(t *testing.T) {
	q := NewQueue[any](Options{})
	run(t, q, func(g *Group[any]) {
		applied(g)
		g.Complete()
	})
	results, err := q.Submit(t.Context(), numbered(1, 3)).Wait(t.Context())
	if got, want := positions(results), []int64{1, 2, 3}; err != nil || !slices.Equal(got, want) {
		t.Errorf("Submit = %v, %v, want %v", got, err, want)
	}
	errJob := errors.New("job")
	if err := q.Do(t.Context(), func(any) error { return errJob }); !errors.Is(err, errJob) {
		t.Errorf("Do = %v, want %v", err, errJob)
	}
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(errJob)
	for name, err := range map[string]error{
		"Do": q.Do(ended, func(any) error { t.Error("a job of a canceled context runs"); return nil }), "Submit": wait(q.Submit(ended, numbered(1, 1))),
	} {
		if !errors.Is(err, errJob) {
			t.Errorf("%s with a canceled context = %v, want its cause", name, err)
		}
	}
	if !q.Close() || q.Close() {
		t.Error("Close() is not true once")
	}
	for name, err := range map[string]error{
		"Do": q.Do(t.Context(), func(any) error { return nil }), "Go": q.Go(func(any) error { return nil }, func(error) {}), "Submit": wait(q.Submit(t.Context(), numbered(1, 1))),
	} {
		if !user.HasReason(err, user.StoreUnavailable) {
			t.Errorf("%s after Close = %v, want %s", name, err, user.StoreUnavailable)
		}
	}
	checkEmpty(t, q)
}

// A group waits for the callers of the last one, at most for half of its duration and 5 ms. Only batches count.
func TestGroupWaitsForCallersOfLast(t *testing.T) {
	for name, test := range map[string]struct {
		last, jobs  int           // batches and jobs in the last group
		duration    time.Duration // of the last group
		next        []time.Duration
		began, size int // of the group after it: milliseconds after the end of the last one, batches
	}{
		"all callers":           {last: 3, duration: 4 * time.Millisecond, next: []time.Duration{0, 0, time.Millisecond}, began: 1, size: 3},
		"a caller is late":      {last: 2, duration: 4 * time.Millisecond, next: []time.Duration{0, 3 * time.Millisecond}, began: 2, size: 1},
		"a long group":          {last: 2, duration: time.Second, next: []time.Duration{0, 6 * time.Millisecond}, began: 5, size: 1},
		"one caller":            {last: 1, duration: 4 * time.Millisecond, next: []time.Duration{0, time.Millisecond}, size: 1},
		"one caller beside job": {last: 1, jobs: 2, duration: 4 * time.Millisecond, next: []time.Duration{0, time.Millisecond}, size: 1},
		"more than a turn":      {last: 6, duration: 4 * time.Millisecond, next: []time.Duration{0, 0, 0, 0, time.Millisecond}, size: 4},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := NewQueue[any](Options{TurnUnits: 4, MaxUnits: 8})
				groups, ended := 0, time.Time{}
				for range test.jobs {
					if err := q.Go(func(any) error { return nil }, func(error) {}); err != nil {
						t.Fatal(err)
					}
				}
				last := make([]*user.Pending, test.last)
				for i := range last {
					last[i] = q.Submit(user.WithCaller(t.Context(), strconv.Itoa(i)), numbered(1, 1))
				}
				run(t, q, func(g *Group[any]) {
					applied(g)
					switch groups++; groups {
					case 1:
						time.Sleep(test.duration)
						ended = time.Now()
					case 2:
						began := int(time.Since(ended).Milliseconds())
						if began != test.began || len(g.Parts) != test.size {
							t.Errorf("the group after %d batches has %d and begins after %d ms, want %d, %d", test.last, len(g.Parts), began, test.size, test.began)
						}
					}
					g.Complete()
				})
				for _, pending := range last {
					<-pending.Done()
				}
				for _, after := range test.next {
					time.AfterFunc(after, func() { q.Submit(t.Context(), numbered(1, 1)) })
				}
				time.Sleep(time.Second)
				synctest.Wait()
				if groups < 2 {
					t.Errorf("%d groups, want 2 or more", groups)
				}
			})
		})
	}
}

// Close does not wait for the callers of the last group.
func TestCloseEndsWaitForCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue[any](Options{})
		last := []*user.Pending{q.Submit(t.Context(), numbered(1, 1)), q.Submit(t.Context(), numbered(2, 1))}
		run(t, q, func(g *Group[any]) {
			applied(g)
			time.Sleep(time.Second)
			g.Complete()
		})
		for _, pending := range last {
			<-pending.Done()
		}
		q.Submit(t.Context(), numbered(3, 1))
		synctest.Wait()
		begin := time.Now()
		q.Close()
		if got, want := time.Since(begin), time.Second; got != want {
			t.Errorf("Close takes %v, want the time of a group, %v", got, want)
		}
	})
}

func wait(p *user.Pending) error {
	_, err := p.Wait(context.Background())
	return err
}

// Close waits for all that is queued.
func TestCloseAppliesTheQueue(t *testing.T) {
	q := NewQueue[any](Options{TurnUnits: 1, MaxUnits: 1})
	pending := q.Submit(t.Context(), numbered(1, 5))
	run(t, q, func(g *Group[any]) {
		applied(g)
		g.Complete()
	})
	q.Close()
	select {
	case <-pending.Done():
	default:
		t.Error("a batch is not complete after Close")
	}
}

// Batches fail with the error of Options.Stopped, jobs too.
func TestStopped(t *testing.T) {
	stopped := errors.New("stopped")
	q := NewQueue[any](Options{Stopped: func() error { return stopped }})
	run(t, q, func(g *Group[any]) {
		if len(g.Parts) > 0 {
			t.Errorf("%d parts after writes have stopped, want none", len(g.Parts))
		}
	})
	if err := wait(q.Submit(t.Context(), numbered(1, 1))); !errors.Is(err, stopped) {
		t.Errorf("Submit = %v, want %v", err, stopped)
	}
	if err := q.Do(t.Context(), func(any) error { return nil }); !errors.Is(err, stopped) {
		t.Errorf("Do = %v, want %v", err, stopped)
	}
	q.Close()
	checkEmpty(t, q)
}

// While a group takes longer than the timeout, batches are rejected, also those that wait for capacity since an earlier
// group; jobs and what is queued are not. It is the same for the next stalled group.
func TestStalledGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 5 * time.Second
		q := NewQueue[any](Options{StallTimeout: timeout})
		hold := make(chan struct{}, 3)
		run(t, q, func(g *Group[any]) {
			<-hold
			applied(g)
			g.Complete()
		})
		other := user.WithCaller(t.Context(), "other")
		for range 2 {
			first := q.Submit(t.Context(), numbered(1, 1))
			synctest.Wait()
			full := q.Submit(t.Context(), large()) // of the caller's share
			var results [2]chan error              // of batches that wait for it
			for i := range results {
				results[i] = make(chan error, 1)
				go func() { results[i] <- wait(q.Submit(t.Context(), large())) }()
				synctest.Wait()
			}
			time.Sleep(timeout / 2)
			hold <- struct{}{}
			if err := wait(first); err != nil {
				t.Errorf("the batch of the first group: %v", err)
			}
			synctest.Wait() // a group with the large batch is applied
			time.Sleep(timeout - time.Millisecond)
			if len(results[1]) > 0 {
				t.Errorf("a blocked batch fails before the timeout: %v", <-results[1])
			}
			time.Sleep(time.Millisecond)
			for name, err := range map[string]error{"blocked": <-results[1], "new": wait(q.Submit(other, numbered(1, 1)))} {
				if !user.HasReason(err, user.Overloaded) {
					t.Errorf("%s batch while the writer is stalled = %v, want %s", name, err, user.Overloaded)
				}
			}
			job := make(chan error, 1)
			go func() { job <- q.Do(t.Context(), func(any) error { return nil }) }()
			for range 3 { // a group for each of the large batches, and one for the job
				hold <- struct{}{}
			}
			if err := errors.Join(wait(full), <-results[0], <-job); err != nil {
				t.Errorf("what was queued before and while the writer was stalled: %v", err)
			}
		}
		q.Close()
		checkEmpty(t, q)
	})
}

// large returns a batch of the weight of CallerBytes.
func large() (b user.Batch) {
	details := map[string]string{"k": strings.Repeat("x", CallerBytes)}
	b.Changes = append(b.Changes, user.Change{Op: &user.Record{ID: 1, Details: details}})
	return b
}

// A batch that waits for capacity is queued when another one has ended, or fails when its context ends. Then another batch of
// the caller gets its share.
func TestBackpressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue[any](Options{})
		hold := make(chan struct{})
		run(t, q, func(g *Group[any]) {
			<-hold
			applied(g)
			g.Complete()
		})
		a, b, c := user.WithCaller(t.Context(), "a"), user.WithCaller(t.Context(), "b"), user.WithCaller(t.Context(), "c")
		if err := q.Go(func(any) error { return nil }, func(error) {}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the group with the job is applied
		queued := []*user.Pending{q.Submit(a, large()), q.Submit(b, large())}
		ended, cancel := context.WithCancelCause(c)
		submit := func(ctx context.Context) chan error {
			t.Helper()
			result := make(chan error, 1)
			go func() { result <- wait(q.Submit(ctx, large())) }()
			synctest.Wait()
			if len(result) > 0 {
				t.Fatalf("a batch without capacity = %v, want it to wait", <-result)
			}
			return result
		}
		forShare, forQueue, forBoth := submit(a), submit(ended), submit(c)
		errEnded := errors.New("ended")
		cancel(errEnded)
		if err := <-forQueue; !errors.Is(err, errEnded) {
			t.Errorf("a batch that waited when its context ended = %v, want %v", err, errEnded)
		}
		close(hold)
		synctest.Wait() // Run waits for items
		for _, p := range queued {
			if err := wait(p); err != nil {
				t.Error(err)
			}
		}
		if err := errors.Join(<-forShare, <-forBoth); err != nil {
			t.Errorf("batches that waited: %v", err)
		}
		q.Close()
		checkEmpty(t, q)
	})
}

// A batch that waits for the queue does not hold the share of its caller twice.
func TestBatchWaitsForQueueOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue[any](Options{})
		a, b, c := user.WithCaller(t.Context(), "a"), user.WithCaller(t.Context(), "b"), user.WithCaller(t.Context(), "c")
		q.Submit(c, numbered(1, 1))
		q.Submit(a, large())
		q.Submit(b, numbered(2, 1))
		rest := batch(1) // of the share of c; with it the queue is too small by the batch of b
		rest.Changes[0].Op = &user.Record{ID: 3, Details: map[string]string{"k": strings.Repeat("x", CallerBytes-QueueBytes/QueueLength-1000)}}
		waiting := make(chan error, 1)
		go func() { waiting <- wait(q.Submit(c, rest)) }()
		synctest.Wait()
		if queued, want := q.items.Len(), 3; queued != want {
			t.Fatalf("%d batches are queued, want %d", queued, want)
		}
		run(t, q, func(g *Group[any]) {
			applied(g)
			g.Complete()
		})
		if err := <-waiting; err != nil {
			t.Errorf("Submit = %v, want success after another caller's batch has ended", err)
		}
	})
}

// A batch whose context has ended is not queued. The changes of a batch are prepared.
func TestSubmitPreparesBatches(t *testing.T) {
	q := NewQueue[any](Options{})
	ended, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("cause")
	cancel(cause)
	if pending := q.Submit(ended, numbered(1, 1)); q.items.Len() != 0 || !errors.Is(wait(pending), cause) {
		t.Errorf("%d items after Submit with a canceled context, want none", q.items.Len())
	}
	create, err := user.NewCreate(user.User{Username: "ann", Email: "ann@example.org"})
	if err != nil {
		t.Fatal(err)
	}
	q.Submit(t.Context(), user.Batch{Changes: []user.Change{{Op: &user.ReadBarrier{ID: 1}}, {Op: create}}})
	g := newGroup(q)
	if !g.Take() {
		t.Fatal("Take() = false, want the batch")
	}
	got := g.Parts[0].Prepared
	if want := decide.Prepare(&user.Change{Op: create}); got[0].Draft != nil || len(want.Index.Tokens) == 0 || !reflect.DeepEqual(got[1], want) {
		t.Errorf("Prepared = %+v, want nothing of the first change, and %+v", got, want)
	}
}

// Weights of ops follow the sizes of their values.
func TestWeighOp(t *testing.T) {
	value := "12345"
	for name, test := range map[string]struct {
		op   user.Op
		want int
	}{
		"no values": {&user.ReadBarrier{ID: 1}, 256},
		"record":    {&user.Record{Details: map[string]string{"abc": "de"}}, 256 + 64 + 5},
		"create": {&user.Create{
			Values: user.User{Username: "ab", Email: "c", Tags: []string{"def"}, Metadata: map[string]string{"g": "h"}},
			Keys:   user.Keys{Username: "ab", Email: "c"},
		}, 256 + 3 + 16 + 3 + 64 + 2 + 8*3},
		"update": {&user.Update{Patch: user.Patch{
			Values: user.User{Username: "ab"}, Entries: map[string]*string{"abc": &value, "d": nil},
		}}, 256 + 2 + 64 + 3 + 5 + 64 + 1},
	} {
		if got := weighOp(test.op); got != test.want {
			t.Errorf("%s: weighOp = %d, want %d", name, got, test.want)
		}
	}
	few, many := weigh(batch(1)), weigh(batch(1000))
	if want := int64(QueueBytes / QueueLength); few != want || many != 256_000 {
		t.Errorf("weigh = %d of one change and %d of a thousand, want %d, 256000", few, many, want)
	}
	creates := batch(1000)
	for i := range creates.Changes {
		creates.Changes[i].Op = &user.Create{Values: user.User{Username: "ab"}}
	}
	if got, want := weigh(creates), int64(1000*(256+2+2*2)); got != want { // with the prepared user and its details
		t.Errorf("weigh = %d of a thousand creates, want %d", got, want)
	}
}
