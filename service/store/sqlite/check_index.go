package sqlite

import (
	"context"
	"database/sql/driver"

	"github.com/yourorg/userservice/service/store/check"
	"github.com/yourorg/userservice/service/store/tokens"
)

// index compares the index with the tokens of the users, in one read transaction, which ends when the connection is
// closed. A store that has not been opened since it has an index may have that of a part of the users only.
func (k *checker) index(ctx context.Context) error {
	if err := k.conn.run("BEGIN"); err != nil {
		return err
	}
	indexed := int64(0)
	if err := k.conn.rows("SELECT indexed FROM meta", func(row []driver.Value) error { indexed = asNumber(row[0]); return nil }); err != nil {
		return err
	}
	if err := k.conn.run("CREATE VIRTUAL TABLE temp.entries USING fts5vocab(main, terms, instance)"); err != nil {
		return err
	}
	return k.Index(func(visit check.Visit) error { return k.eachEntry(ctx, indexed, visit) })
}

// eachEntry calls visit for each token of the users up to an ID, and for each unused token, with sign 1, and for
// each entry of the index with sign -1.
func (k *checker) eachEntry(ctx context.Context, upTo int64, visit check.Visit) error {
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
	return k.conn.rowsContext(ctx, "SELECT doc, term FROM temp.entries", func(row []driver.Value) error {
		t, err := parseToken(asText(row[1]))
		if err != nil {
			return k.Add("index: unknown entry %q of user %d", asText(row[1]), asNumber(row[0]))
		}
		visit(asNumber(row[0]), t, check.Minus)
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
