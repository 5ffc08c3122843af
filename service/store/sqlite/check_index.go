package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"slices"

	"github.com/yourorg/userservice/service/store/tokens"
)

// checkBuckets is the number of groups of users that the check of the index compares.
const checkBuckets = 4096

// index compares the index with the tokens of the users, in one read transaction. Both are compared by a sum
// for each group of users; of the first group that differs, the users are found. A store that has not been
// opened since it has an index may have that of a part of the users only.
func (k *checker) index(ctx context.Context) (err error) {
	if err := k.conn.run("BEGIN"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.conn.run("COMMIT")) }()
	indexed := int64(0)
	if err := k.conn.rows("SELECT indexed FROM meta", func(row []driver.Value) error { indexed = asNumber(row[0]); return nil }); err != nil {
		return err
	}
	if err := k.conn.run("CREATE VIRTUAL TABLE temp.entries USING fts5vocab(main, terms, instance)"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.conn.run("DROP TABLE temp.entries")) }()
	var sums [checkBuckets]uint64
	err = k.eachEntry(ctx, indexed, func(id int64, t tokens.Token, sign uint64) { sums[bucket(id)] += sign * entrySum(id, t) })
	if err != nil {
		return err
	}
	different := slices.IndexFunc(sums[:], func(sum uint64) bool { return sum != 0 })
	if different < 0 {
		return nil
	}
	users := make(map[int64]uint64)
	err = k.eachEntry(ctx, indexed, func(id int64, t tokens.Token, sign uint64) {
		if bucket(id) == different {
			users[id] += sign * entrySum(id, t)
		}
	})
	for id, sum := range users {
		if sum != 0 && err == nil {
			err = k.found("user %d: its entries in the index are not those of its fields", id)
		}
	}
	return err
}

// bucket returns the group of a user.
func bucket(id int64) int { return int(entrySum(id, 0) % checkBuckets) } //nolint:gosec,nolintlint // less than checkBuckets

// entrySum returns a hash of an entry of the index (the finalizer of MurmurHash3).
func entrySum(id int64, t tokens.Token) uint64 {
	h := uint64(id)*0x9e3779b97f4a7c15 + uint64(t) //nolint:gosec,nolintlint // any 64 bits
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// eachEntry calls visit for each token of the users up to an ID, and for each unused token, with sign 1, and for
// each entry of the index with sign -1.
func (k *checker) eachEntry(ctx context.Context, upTo int64, visit func(id int64, t tokens.Token, sign uint64)) error {
	err := k.eachUser(ctx, func(row []driver.Value) error {
		u, keys, err := scanListed(row)
		if err != nil || u.ID > upTo {
			return nil //nolint:nilerr // found by users
		}
		for _, t := range tokens.OfUser(u, keys) {
			visit(u.ID, t, 1)
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = k.conn.rows("SELECT user_id, tokens FROM unused_terms", func(row []driver.Value) error {
		tokens, err := splitTokens(asText(row[1]))
		for _, t := range tokens {
			visit(asNumber(row[0]), t, 1)
		}
		return err
	})
	if err != nil {
		return err
	}
	minusOne := ^uint64(0)
	return k.conn.rowsContext(ctx, "SELECT doc, term FROM temp.entries", func(row []driver.Value) error {
		t, err := parseToken(asText(row[1]))
		if err != nil {
			return k.found("index: unknown entry %q of user %d", asText(row[1]), asNumber(row[0]))
		}
		visit(asNumber(row[0]), t, minusOne)
		return nil
	})
}

// eachUser calls visit for each user of the snapshot.
func (k *checker) eachUser(ctx context.Context, visit func(row []driver.Value) error) error {
	var err error
	chunk := k.conn.prepare(&err, listQueries[byID])
	if err != nil {
		return err
	}
	id := int64(0)
	for more := true; more; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		more = false
		err := chunk.each(func(row []driver.Value) (bool, error) {
			more = true
			id = asNumber(row[0])
			return true, visit(row)
		}, id, int64(checkChunk))
		if err != nil {
			return err
		}
	}
	return nil
}
