package feed_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/store/storetest"
	"github.com/yourorg/userservice/service/user"
)

// lateStore publishes a commit to readers before it notifies the feed, as a real store does.
type lateStore struct {
	*storetest.Model
	observer    func(user.Commit)
	unpublished []user.Commit
	history     *history
	notef       func(string, ...any)
	during      func()          // runs before and after each read
	asked       []user.Activity // rows of the last log page
	stale       bool            // injects a fault: a status at the position of an older row
}

func (s *lateStore) Observe(observer func(user.Commit)) {
	s.observer = observer
	s.Model.Observe(func(c user.Commit) {
		s.history.add(c)
		for _, change := range c.Changes {
			for _, row := range change.Rows {
				s.notef("  row %d: user %d %s", row.Position, row.UserID, row.Action)
			}
		}
		s.unpublished = append(s.unpublished, c)
	})
}

// notifyFeed passes the commits to the feed.
func (s *lateStore) notifyFeed() {
	for _, commit := range s.unpublished {
		s.notef("  feed notified up to %d", commit.Head.Position)
		s.observer(commit)
	}
	s.unpublished = nil
}

// Submit notifies the feed of earlier commits, then commits.
func (s *lateStore) Submit(ctx context.Context, batch user.Batch) *user.Pending {
	s.notifyFeed()
	return s.Model.Submit(ctx, batch)
}

func (s *lateStore) Log(ctx context.Context, query user.LogQuery) (user.LogPage, error) {
	s.during()
	defer s.during()
	page, err := s.Model.Log(ctx, query)
	s.asked = page.Rows
	return page, err
}

func (s *lateStore) Statuses(ctx context.Context, ids []int64) ([]user.CurrentStatus, error) {
	s.during()
	defer s.during()
	statuses, err := s.Model.Statuses(ctx, ids)
	for i := range statuses {
		for _, row := range s.asked {
			if s.stale && row.UserID == statuses[i].UserID {
				statuses[i].Position = row.Position
			}
		}
	}
	return statuses, err
}

// fact is the status that every subscription must deliver at a position.
type fact struct {
	userID int64
	status user.Status // StatusNone: deleted or purged
	reason user.Reason // of the error of a deleted or purged user
	times  []time.Time // status times; a change of the time alone has no row
}

// history is the reference model: the facts computed from the rows.
type history struct {
	facts  map[int64]*fact
	latest map[int64]int64 // position of the latest fact, by user
	status map[int64]user.Status
}

func newHistory() *history {
	return &history{facts: map[int64]*fact{}, latest: map[int64]int64{}, status: map[int64]user.Status{}}
}

func (h *history) add(c user.Commit) {
	for _, change := range c.Changes {
		for _, row := range change.Rows {
			h.row(row, change.User)
		}
		if f := h.facts[h.latest[change.UserID]]; change.User != nil {
			f.times = append(f.times, change.User.StatusTime)
		}
	}
}

func (h *history) row(row user.Activity, u *user.User) {
	f := &fact{userID: row.UserID}
	switch row.Action {
	case user.ActionCreated, user.ActionStatusChanged:
		f.status = u.Status
		h.status[row.UserID] = f.status
	case user.ActionUndeleted:
		f.status = h.status[row.UserID]
	case user.ActionDeleted:
		f.reason = user.UserDeleted
	case user.ActionPurged:
		f.reason = user.UserNotFound
	default:
		return
	}
	h.facts[row.Position], h.latest[row.UserID] = f, row.Position
}

// latestUpTo returns the position of the latest fact of a user up to a position.
func (h *history) latestUpTo(id, position int64) int64 {
	for p := min(position, h.latest[id]); p > 0; p-- {
		if f := h.facts[p]; f != nil && f.userID == id {
			return p
		}
	}
	return 0
}

// world is a feed with its writers and streams.
type world struct {
	r       *rapid.T
	clock   *storetest.Clock
	store   *lateStore
	feed    *feed.Feed
	ids     []int64
	streams []*stream
	trace   []string // printed with a failure
	err     error    // the first violation of an invariant
}

func newWorld(r *rapid.T, plant fault) *world {
	clock := storetest.NewClock()
	w := &world{r: r, clock: clock}
	w.store = &lateStore{Model: storetest.NewModel(clock.Now), history: newHistory(), stale: plant == faultNewerStatus}
	w.store.notef = w.notef
	w.store.during = func() {
		for range rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(r, "during a read") {
			w.write()
		}
	}
	var err error
	if w.feed, err = feed.Open(context.Background(), w.store); err != nil {
		r.Fatal(err)
	}
	w.feed.SetLimits(maxFollows, 3, 3)
	for range 3 {
		w.streams = append(w.streams, newStream(w, plant))
	}
	return w
}

func (w *world) failf(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(w.trace, "\n"))
	}
}

// notef adds a line to the trace.
func (w *world) notef(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

// write commits one to four changes and notifies the feed now or later. The clock does not go
// back, because a status time set by a wrong clock may be replaced by an earlier one.
func (w *world) write() {
	if rapid.IntRange(0, 2).Draw(w.r, "clock") == 0 {
		w.clock.Advance(rapid.SampledFrom([]time.Duration{time.Microsecond, time.Second, 2 * time.Hour}).Draw(w.r, "advance"))
	}
	var batch user.Batch
	for range rapid.IntRange(1, 4).Draw(w.r, "changes") {
		batch.Changes = append(batch.Changes, user.Change{Op: w.op()})
	}
	w.apply(batch)
	if rapid.Bool().Draw(w.r, "notify") {
		w.store.notifyFeed() // otherwise at the next write or response
	}
}

func (w *world) apply(batch user.Batch) []user.Result {
	results, err := user.Apply(context.Background(), w.store, batch)
	if err != nil {
		w.r.Fatal(err)
	}
	for _, result := range results {
		if result.Outcome == user.OutcomeCreated {
			w.ids = append(w.ids, result.User.ID)
		}
	}
	return results
}

// anyID prefers a few users, so that they change often.
func (w *world) anyID() int64 {
	ids := w.ids
	if most := 3; len(ids) > most && rapid.IntRange(0, 4).Draw(w.r, "any") > 0 {
		ids = ids[:most]
	}
	return rapid.SampledFrom(append(slices.Clone(ids), 4711)).Draw(w.r, "user")
}

func (w *world) op() user.Op {
	kind := 13 - rapid.IntRange(0, 13).Draw(w.r, "op")
	if kind == 0 || len(w.ids) == 0 {
		n := len(w.store.history.facts)
		op, err := user.NewCreate(user.User{Username: fmt.Sprintf("user %d", n), Email: fmt.Sprintf("u%d@example.org", n)})
		if err != nil {
			w.r.Fatal(err)
		}
		return op
	}
	id := w.anyID()
	status := user.Status(rapid.IntRange(1, 3).Draw(w.r, "status"))
	switch kind {
	case 1, 2:
		return &user.Delete{ID: id, Retention: rapid.SampledFrom([]time.Duration{0, time.Hour}).Draw(w.r, "retention")}
	case 3, 4:
		return &user.Undelete{ID: id}
	case 5:
		if rapid.Bool().Draw(w.r, "keep") {
			return &user.Record{ID: id, Action: "app.seen"}
		}
		return &user.Purge{ID: id}
	case 6:
		return &user.Record{ID: id, Action: "app.seen"}
	case 7:
		tags := []string{fmt.Sprint(len(w.store.history.facts))}
		op, err := user.NewUpdate(id, user.NewPatch(user.User{Tags: tags, Status: status}), "")
		if err != nil {
			w.r.Fatal(err)
		}
		return op
	case 8:
		return &user.SetStatus{ID: id, Status: status, Time: w.clock.Now().Add(rapid.SampledFrom([]time.Duration{
			-time.Second, time.Second, time.Minute,
		}).Draw(w.r, "at"))}
	default:
		return &user.SetStatus{ID: id, Status: status}
	}
}
