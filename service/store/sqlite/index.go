package sqlite

import (
	"cmp"
	"slices"

	"github.com/yourorg/userservice/service/store/decide"
	"github.com/yourorg/userservice/service/store/tokens"
	"github.com/yourorg/userservice/service/user"
)

// indexChange is a change of the tokens of a user in the transaction.
type indexChange struct {
	id          int64
	number      int // of the change in the transaction
	remove, add []tokens.Token
	text        string // of add; empty: not known
	created     bool   // the user had no tokens before
	purged      bool   // no trace of the user may remain
}

// indexWriter writes the index. The changes of a transaction are written at its end, in the order of the
// users: the index would otherwise be flushed to disk at each step back.
type indexWriter struct {
	changes     []indexChange
	keepEntries bool // see Options

	insert, remove                   *stmt
	getUnused, putUnused, dropUnused *stmt
}

func newIndexWriter(err *error, c *conn) indexWriter {
	return indexWriter{
		insert:     c.prepare(err, "INSERT INTO terms (rowid, tokens) VALUES (?, ?)"),
		remove:     c.prepare(err, "INSERT INTO terms (terms, rowid, tokens) VALUES ('delete', ?, ?)"),
		getUnused:  c.prepare(err, "SELECT tokens FROM unused_terms WHERE user_id = ?"),
		putUnused:  c.prepare(err, "INSERT OR REPLACE INTO unused_terms (user_id, tokens) VALUES (?, ?)"),
		dropUnused: c.prepare(err, "DELETE FROM unused_terms WHERE user_id = ?"),
	}
}

// create adds the tokens of a new user.
func (x *indexWriter) create(id int64, index decide.Index) {
	if len(index.Tokens) > 0 {
		x.changes = append(x.changes, indexChange{id: id, number: len(x.changes), add: index.Tokens, text: index.Text, created: true})
	}
}

// update replaces tokens of a user.
func (x *indexWriter) update(id int64, remove, add []tokens.Token) {
	if len(remove)+len(add) > 0 {
		x.changes = append(x.changes, indexChange{id: id, number: len(x.changes), remove: remove, add: add})
	}
}

// purge removes the tokens of a user.
func (x *indexWriter) purge(id int64, remove []tokens.Token) {
	x.changes = append(x.changes, indexChange{id: id, number: len(x.changes), remove: remove, purged: true})
}

// flush writes the changes of the transaction. It reports whether there are new unused tokens.
func (x *indexWriter) flush() (unused bool, err error) {
	changes := x.changes
	slices.SortFunc(changes, func(a, b indexChange) int { return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.number, b.number)) })
	for len(changes) > 0 {
		change := changes[0]
		for changes = changes[1:]; len(changes) > 0 && changes[0].id == change.id; changes = changes[1:] {
			change.join(changes[0])
		}
		more, err := x.write(change)
		if err != nil {
			return false, err
		}
		unused = unused || more
	}
	return unused, nil
}

// join adds a later change of the same user.
func (c *indexChange) join(next indexChange) {
	remove := slices.Concat(c.remove, tokens.Without(next.remove, c.add))
	add := slices.Concat(tokens.Without(c.add, next.remove), tokens.Without(next.add, c.remove))
	c.remove, c.add, c.text = tokens.Without(remove, next.add), add, ""
	slices.Sort(c.remove)
	slices.Sort(c.add)
	c.purged = next.purged
}

// write writes a change. Tokens that are no longer used remain in the index until they are cleaned, because
// to remove an entry takes twenty times as long as to insert one.
func (x *indexWriter) write(c indexChange) (unused bool, err error) {
	switch {
	case c.created && !c.purged && c.text != "":
		return false, x.insert.exec(c.id, c.text)
	case c.created && !c.purged:
		return false, x.insertTokens(c.id, c.add)
	}
	before, err := x.unusedOf(c.id)
	if err != nil {
		return false, err
	}
	after := slices.Concat(tokens.Without(before, c.add), c.remove)
	if c.purged {
		if err := x.removeTokens(c.id, after); err != nil {
			return false, err
		}
		after = nil
	} else if err := x.insertTokens(c.id, tokens.Without(c.add, before)); err != nil {
		return false, err
	}
	return len(after) > 0, x.setUnused(c.id, after, len(before) > 0)
}

func (x *indexWriter) insertTokens(id int64, list []tokens.Token) error {
	if len(list) == 0 {
		return nil
	}
	return x.insert.exec(id, joinTokens(list))
}

// removeTokens removes entries of the index, without trace.
func (x *indexWriter) removeTokens(id int64, list []tokens.Token) error {
	if len(list) == 0 || x.keepEntries {
		return nil
	}
	if err := x.remove.exec(id, joinTokens(list)); err != nil {
		return err
	}
	// The index counts rows: one for each insert, which a removal of some list must not take away.
	return x.insert.exec(id, "")
}

// unusedOf returns the tokens of a user that are to be removed from the index.
func (x *indexWriter) unusedOf(id int64) ([]tokens.Token, error) {
	row, err := x.getUnused.one(id)
	if err != nil || row == nil {
		return nil, err
	}
	return splitTokens(asText(row[0]))
}

func (x *indexWriter) setUnused(id int64, list []tokens.Token, stored bool) error {
	switch {
	case len(list) > 0:
		return x.putUnused.exec(id, joinTokens(list))
	case stored:
		return x.dropUnused.exec(id)
	}
	return nil
}

// indexKeys returns the stored normal forms of a user if its change to next changes them, so that they can be
// removed from the index.
func (w *writer) indexKeys(cur, next *user.User) (keys user.Keys, err error) {
	if next != nil && next.Username == cur.Username && next.Email == cur.Email {
		return keys, nil // neither tokens nor changes of the names
	}
	row, err := w.getKeys.one(cur.ID)
	if err == nil && row != nil {
		keys = user.Keys{Username: asText(row[0]), Email: asText(row[1])}
	}
	return keys, err
}

// indexUpdate records the change of a user with keys from indexKeys to next. Keys of next that are empty are
// those of before.
func (w *writer) indexUpdate(cur, next *user.User, before, keys user.Keys) {
	after := user.Keys{Username: cmp.Or(keys.Username, before.Username), Email: cmp.Or(keys.Email, before.Email)}
	removed, added := tokens.OfChange(cur, before, next, after)
	w.index.update(cur.ID, removed, added)
}
