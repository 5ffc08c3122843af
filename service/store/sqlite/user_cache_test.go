package sqlite

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/user"
)

// cacheFault is a wrong use of the cache.
type cacheFault string

const (
	lateRemoval      cacheFault = "the writer removes users after the commit"
	earlyEnd         cacheFault = "the transaction ends in the cache before the commit"
	lateTransactions cacheFault = "the number of transactions is that after the read"
	noRemoval        cacheFault = "the writer removes no users"
)

// cacheSimulation runs steps of a writer and of readers in a random order.
type cacheSimulation struct {
	random    *rand.Rand
	cache     *userCache
	fault     cacheFault
	committed map[int64]int64 // version by user
	pending   map[int64]int64 // of the transaction in progress
	writer    []func()        // steps until the transaction has ended
	readers   [4][]func()     // steps until the read has ended
	cachedHit int
}

const simulatedUsers = 3

func newCacheSimulation(seed uint64, fault cacheFault) *cacheSimulation {
	s := &cacheSimulation{random: rand.New(rand.NewPCG(seed, 1)), cache: newUserCache(), fault: fault, committed: make(map[int64]int64)}
	for id := range int64(simulatedUsers) {
		s.committed[id] = 1
	}
	return s
}

func (s *cacheSimulation) beginTransaction() {
	s.pending = make(map[int64]int64)
	change := func(id int64) {
		if s.fault != noRemoval && s.fault != lateRemoval {
			s.cache.remove(id)
		}
		s.pending[id] = s.committed[id] + 1
	}
	for range 1 + s.random.IntN(2) {
		id := s.random.Int64N(simulatedUsers)
		s.writer = append(s.writer, func() { change(id) })
	}
	commit := func() {
		if s.random.IntN(4) == 0 {
			return // rolled back
		}
		for id, version := range s.pending {
			s.committed[id] = version
		}
	}
	switch s.fault {
	case earlyEnd:
		s.writer = append(s.writer, s.cache.endTransaction, commit)
	case lateRemoval:
		s.writer = append(s.writer, commit, func() {
			for id := range s.pending {
				s.cache.remove(id)
			}
		}, s.cache.endTransaction)
	default:
		s.writer = append(s.writer, commit, s.cache.endTransaction)
	}
}

func (s *cacheSimulation) beginRead(reader int) {
	id := s.random.Int64N(simulatedUsers)
	u, transactions := s.cache.get(id)
	if u != nil {
		s.cachedHit++
		return
	}
	var read user.User
	s.readers[reader] = []func(){
		func() { read = user.User{ID: id, Version: s.committed[id]} },
		func() {
			if s.fault == lateTransactions {
				transactions = s.cache.transactions
			}
			s.cache.add(&read, transactions)
		},
	}
}

// step runs a step of the writer or of a reader.
func (s *cacheSimulation) step() {
	i := s.random.IntN(len(s.readers) + 1)
	steps := &s.writer
	if i < len(s.readers) {
		steps = &s.readers[i]
	}
	switch {
	case len(*steps) > 0:
		(*steps)[0]()
		*steps = (*steps)[1:]
	case i < len(s.readers):
		s.beginRead(i)
	default:
		s.beginTransaction()
	}
}

// stale reports whether a cached user is not that of the latest commit.
func (s *cacheSimulation) stale() bool {
	for id, version := range s.committed {
		if u, _ := s.cache.get(id); u != nil && u.Version != version {
			return true
		}
	}
	return false
}

// In every order of the steps of a writer and of readers, a cached user is the one of the latest commit. The same
// check finds each wrong use of the cache.
func TestCachedUserIsThatOfLatestCommit(t *testing.T) {
	t.Parallel()
	staleRuns := func(fault cacheFault) (runs, hits int) {
		for seed := range uint64(300) {
			s := newCacheSimulation(seed, fault)
			for range 300 {
				if s.step(); s.stale() {
					runs++
					break
				}
			}
			hits += s.cachedHit
		}
		return runs, hits
	}
	if runs, hits := staleRuns(""); runs > 0 || hits < 1000 {
		t.Errorf("got %d of 300 runs with a stale user and %d reads of cached users, want 0 and at least 1000", runs, hits)
	}
	for _, fault := range []cacheFault{lateRemoval, earlyEnd, lateTransactions, noRemoval} {
		if runs, _ := staleRuns(fault); runs == 0 {
			t.Errorf("%s: not found", fault)
		}
	}
}

// A user that a transaction changes is removed from both parts of the cache.
func TestChangedUserIsNotCached(t *testing.T) {
	t.Parallel()
	c := newUserCache()
	recent, older := &user.User{ID: 1}, &user.User{ID: 2}
	c.insert(recent)
	c.older = map[int64]*user.User{older.ID: older}
	for _, id := range []int64{recent.ID, older.ID} {
		c.remove(id)
		if got, _ := c.get(id); got != nil {
			t.Errorf("get(%d) after remove = %+v, want nil", id, got)
		}
	}
}

// The sizes of the cached users are within the limit, and a user that is read again remains.
func TestUserCacheIsBounded(t *testing.T) {
	t.Parallel()
	c := newUserCache()
	large := func(id int64) *user.User { return &user.User{ID: id, Username: strings.Repeat("x", 1<<10)} }
	c.add(large(-2), 0)
	if c.remove(-2); c.bytes != 0 {
		t.Errorf("%d bytes after all users were removed, want 0", c.bytes)
	}
	for id := range int64(20_000) {
		c.add(large(id), 0)
		if u, _ := c.get(0); u == nil {
			t.Fatalf("user 0 was removed when %d users were added", id)
		}
		size := 0
		for _, users := range []map[int64]*user.User{c.recent, c.older} {
			size += len(users) * large(0).Size()
		}
		if size > userCacheBytes {
			t.Fatalf("got %d bytes after %d users, want at most %d", size, id, userCacheBytes)
		}
	}
	if u, _ := c.get(1); u != nil {
		t.Error("user 1 is cached, want it removed")
	}
	c.add(&user.User{ID: -1, Username: strings.Repeat("x", maxCachedUser)}, 0)
	if u, _ := c.get(-1); u != nil {
		t.Error("a user above the limit is cached")
	}
	c.close()
	c.add(large(1), 0)
	if u, _ := c.get(1); u != nil {
		t.Error("a user was added after close")
	}
}
