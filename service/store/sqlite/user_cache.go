package sqlite

import (
	"sync"

	"github.com/yourorg/userservice/service/user"
)

const (
	// userCacheBytes bounds the sizes of the cached users.
	userCacheBytes = 4 << 20
	// maxCachedUser is the size of the largest user in the cache.
	maxCachedUser = 64 << 10
)

// userCache contains users as of the latest commit. The writer removes a user before a transaction changes it, and
// calls endTransaction after the commit or rollback. In between the user is not cached, and a user that was read before
// the end of a transaction is not added after it. So a cached user is the one that SQLite would return.
type userCache struct {
	mu sync.Mutex
	// A user is in one of the two, and is not modified. older is dropped when recent has half of the bytes.
	recent, older map[int64]*user.User
	bytes         int                // of recent
	changed       map[int64]struct{} // users that the transaction in progress changes
	transactions  uint64             // number of ended transactions
}

func newUserCache() *userCache {
	return &userCache{recent: make(map[int64]*user.User), changed: make(map[int64]struct{})}
}

// get returns a copy of a cached user, or nil and the number of ended transactions for add.
func (c *userCache) get(id int64) (u *user.User, transactions uint64) {
	if u, transactions = c.find(id); u != nil {
		u = u.Clone()
	}
	return u, transactions
}

func (c *userCache) find(id int64) (u *user.User, transactions uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if u = c.recent[id]; u == nil {
		if u = c.older[id]; u != nil {
			c.insert(u)
		}
	}
	return u, c.transactions
}

// add adds a copy of a user that was read after get returned the number of ended transactions.
func (c *userCache) add(u *user.User, transactions uint64) {
	if u.Size() > maxCachedUser {
		return
	}
	u = u.Clone()
	c.mu.Lock()
	defer c.mu.Unlock()
	_, changed := c.changed[u.ID]
	if isClosed := c.recent == nil; isClosed || changed || transactions != c.transactions || c.recent[u.ID] != nil {
		return
	}
	c.insert(u)
}

func (c *userCache) insert(u *user.User) {
	if size := u.Size(); c.bytes+size > userCacheBytes/2 {
		c.older, c.recent, c.bytes = c.recent, make(map[int64]*user.User), size
	} else {
		c.bytes += size
	}
	delete(c.older, u.ID)
	c.recent[u.ID] = u
}

// remove removes a user that the transaction in progress changes.
func (c *userCache) remove(id int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed[id] = struct{}{}
	if u := c.recent[id]; u != nil {
		c.bytes -= u.Size()
		delete(c.recent, id)
	}
	delete(c.older, id)
}

// endTransaction must be called after each transaction, before its results are returned.
func (c *userCache) endTransaction() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.transactions++
	clear(c.changed)
}

// close empties the cache; nothing is added afterwards.
func (c *userCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recent, c.older = nil, nil
}
