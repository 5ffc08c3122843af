package feed_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/store/storetest"
	"github.com/yourorg/userservice/service/user"
)

// Mirrors of a store that is changed at random end with its matching users, and have them exactly when they reach
// the head first. Reads, notifications and mirrors are delayed at random, and the window is small, so that mirrors
// leave and join it.
func TestUserCursorsMirrorTheStore(t *testing.T) {
	var total mirrorCounts
	for seed := range uint64(150) {
		synctest.Test(t, func(t *testing.T) {
			counts, err := runMirrors(seed, "")
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			total.reads += counts.reads
			total.lists += counts.lists
			total.refused += counts.refused
		})
	}
	if total.lists*3 > total.reads*2 || total.lists*10 < total.reads || total.refused == 0 {
		t.Errorf("%d of %d reads were of the store and %d windows had no memory, want some of each", total.lists, total.reads, total.refused)
	}
}

func TestMirrorPropertyFindsFaults(t *testing.T) {
	for _, fault := range []string{"lose a change", "hide a change", "no purges"} {
		t.Run(fault, func(t *testing.T) {
			for seed := range uint64(100) {
				var failure error
				synctest.Test(t, func(*testing.T) { _, failure = runMirrors(seed, fault) })
				if failure != nil {
					t.Logf("seed %d: %v", seed, failure)
					return
				}
			}
			t.Error("fault not detected")
		})
	}
}

type mirrorCounts struct{ reads, lists, refused int }

// directory is a store with random delays, and the history of its users.
type directory struct {
	*storetest.Model
	fault string

	mu     sync.Mutex
	random *rand.Rand
	counts mirrorCounts
	states map[int64][]userState
}

type userState struct {
	position int64
	user     *user.User // nil: purged
}

func (d *directory) chance(n int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.random.IntN(n) == 0
}

// delay sleeps in the time of the bubble, sometimes for many writes.
func (d *directory) delay() {
	d.mu.Lock()
	sleep := time.Duration(max(0, d.random.IntN(40)-20))
	if d.random.IntN(100) == 0 {
		sleep = 1000
	}
	d.mu.Unlock()
	time.Sleep(sleep)
}

// Observe delays the notifications, while reads already return the commit.
func (d *directory) Observe(observer func(user.Commit)) {
	d.Model.Observe(func(c user.Commit) {
		d.mu.Lock()
		for i := range c.Changes {
			change := &c.Changes[i]
			if len(change.Rows) == 0 {
				continue // the start of a purge
			}
			d.states[change.UserID] = append(d.states[change.UserID], userState{change.Rows[len(change.Rows)-1].Position, change.User})
		}
		d.mu.Unlock()
		if d.fault == "hide a change" && d.chance(8) {
			c.Changes = nil
		}
		d.delay()
		observer(c)
	})
}

func (d *directory) List(ctx context.Context, query user.ListQuery) (user.ListPage, error) {
	d.delay()
	defer d.delay()
	d.mu.Lock()
	d.counts.lists++
	d.mu.Unlock()
	page, err := d.Model.List(ctx, query)
	if n := len(page.Users); d.fault == "lose a change" && n > 0 && page.Next == nil && d.chance(8) {
		page.Users = page.Users[:n-1]
	}
	return page, err
}

func (d *directory) Log(ctx context.Context, query user.LogQuery) (user.LogPage, error) {
	d.delay()
	defer d.delay()
	page, err := d.Model.Log(ctx, query)
	if d.fault == "no purges" {
		page.Rows = nil
	}
	return page, err
}

// at returns the matching users at a position.
func (d *directory) at(position int64, opts feed.UserCursorOptions) map[int64]user.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	users := map[int64]user.Status{}
	for id, states := range d.states {
		i := slices.IndexFunc(states, func(s userState) bool { return s.position > position })
		if i < 0 {
			i = len(states)
		}
		if i == 0 || states[i-1].user == nil {
			continue
		}
		if u := states[i-1].user; (opts.ShowDeleted || !u.Deleted()) && (opts.Match == nil || opts.Match(u, user.Keys{})) {
			users[id] = u.Status
		}
	}
	return users
}

// runMirrors writes while mirrors read.
func runMirrors(seed uint64, fault string) (mirrorCounts, error) {
	d := &directory{
		Model: storetest.NewModel(nil), fault: fault, random: rand.New(rand.NewPCG(seed, 0)), states: map[int64][]userState{},
	}
	f, err := feed.Open(context.Background(), d)
	if err != nil {
		return d.counts, err
	}
	f.SetWindow([]int{2 << 10, 8 << 10, 64 << 10}[d.random.IntN(3)])
	f.SetMemory(func(int64) (func(), bool) {
		ok := !d.chance(4)
		d.mu.Lock()
		defer d.mu.Unlock()
		if !ok {
			d.counts.refused++
		}
		return func() {}, ok
	})
	ctx, cancel := context.WithCancel(context.Background())
	var mirrors []*userMirror
	var reading sync.WaitGroup
	active := func(u *user.User, _ user.Keys) bool { return u.Status == user.StatusActive }
	for _, opts := range []feed.UserCursorOptions{{}, {Match: active}, {ShowDeleted: true}, {ShowDeleted: true, Match: active}} {
		m := &userMirror{directory: d, feed: f, opts: opts, users: map[int64]user.Status{}}
		mirrors = append(mirrors, m)
		reading.Go(func() { m.err = m.run(ctx) })
	}
	err = d.write()
	time.Sleep(time.Second) // until every mirror waits
	cancel()
	reading.Wait()
	for i, m := range mirrors {
		switch want := d.at(f.Head().Position, m.opts); {
		case m.err != nil:
			err = cmpErr(err, fmt.Errorf("mirror %d: %w", i, m.err))
		case !maps.Equal(m.users, want):
			err = cmpErr(err, fmt.Errorf("mirror %d at position %d = %v, want %v", i, m.opts.After, m.users, want))
		}
	}
	return d.counts, err
}

func cmpErr(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

// write makes random changes to a few users.
func (d *directory) write() error {
	var ids []int64
	for n := range 200 {
		d.delay()
		op := d.op(n, ids)
		result, err := user.ApplyOne(context.Background(), d, user.Change{Op: op})
		if failure := (*user.Error)(nil); err != nil && !errors.As(err, &failure) {
			return err
		}
		if result.Outcome == user.OutcomeCreated {
			ids = append(ids, result.User.ID)
		}
	}
	return nil
}

func (d *directory) op(n int, ids []int64) user.Op {
	d.mu.Lock()
	defer d.mu.Unlock()
	kind := d.random.IntN(14)
	if len(ids) == 0 || kind < 2 || kind > 11 {
		op, err := user.NewCreate(user.User{Username: fmt.Sprintf("user %d", n), Email: fmt.Sprintf("u%d@example.org", n)})
		if err != nil {
			panic(err)
		}
		return op
	}
	id := ids[d.random.IntN(len(ids))]
	switch kind {
	case 2:
		return &user.Delete{ID: id}
	case 3:
		return &user.Undelete{ID: id}
	case 4:
		return &user.StartPurge{ID: id}
	case 5:
		return &user.Purge{ID: id}
	case 6, 7:
		return &user.Record{ID: id, Action: "app.seen"}
	default:
		return &user.SetStatus{ID: id, Status: user.Status(1 + d.random.IntN(2))}
	}
}

// userMirror is a copy of the matching users.
type userMirror struct {
	directory *directory
	feed      *feed.Feed
	opts      feed.UserCursorOptions
	users     map[int64]user.Status
	err       error
}

// run opens cursors, each after the last position.
func (m *userMirror) run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := m.follow(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

func (m *userMirror) follow(ctx context.Context) error {
	c := m.feed.UserCursor(m.opts)
	defer c.Close()
	for synced := false; !m.directory.chance(20); {
		m.directory.delay()
		page, err := c.Read(ctx)
		if err != nil {
			return err
		}
		m.directory.mu.Lock()
		m.directory.counts.reads++
		m.directory.mu.Unlock()
		for _, change := range page.Changes {
			if err := m.apply(&change); err != nil {
				return err
			}
		}
		if head := m.feed.Head().Position; c.Position() > head {
			return fmt.Errorf("Position() = %d ahead of the feed at %d, from which no client can resume", c.Position(), head)
		}
		if c.Position() < m.opts.After {
			return fmt.Errorf("Position() = %d after position %d", c.Position(), m.opts.After)
		}
		m.opts.After = c.Position()
		if !page.AtHead {
			continue
		}
		if want := m.directory.at(c.Position(), m.opts); !synced && !maps.Equal(m.users, want) {
			return fmt.Errorf("users at position %d = %v, want %v", c.Position(), m.users, want)
		}
		synced = true
		if err := c.Wait(ctx, nil); err != nil {
			return err
		}
	}
	return nil
}

func (m *userMirror) apply(change *feed.UserChange) error {
	if change.Position <= m.opts.After {
		return fmt.Errorf("change of user %d at position %d after position %d", change.UserID, change.Position, m.opts.After)
	}
	m.opts.After = change.Position
	if change.User == nil {
		delete(m.users, change.UserID)
	} else {
		m.users[change.UserID] = change.User.Status
	}
	return nil
}
