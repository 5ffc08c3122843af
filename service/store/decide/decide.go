// Package decide applies changes in the transaction of a store: which users and requests it reads, and what it writes, in
// which order. All stores share it, so that a change has the same effect on each.
package decide

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/store/tokens"
	"github.com/yourorg/userservice/service/user"
)

// Errors of Tx.Insert and Tx.Update.
var (
	ErrTaken  = errors.New("another user has the username or the e-mail address")
	ErrSameID = errors.New("another user has the id")
)

// Tx is a transaction in which changes are decided one at a time. An error other than ErrTaken and ErrSameID is
// unexpected.
type Tx interface {
	Stamp() user.CommitStamp
	// First returns the position of the oldest retained row.
	First() int64
	// NewID returns an id for a user, which may be in use.
	NewID() (int64, error)
	// User returns a user, or nil. It must not be modified.
	User(id int64) (*user.User, error)
	// Holders returns the users with the names, or nil. An empty name has no holder.
	Holders(names user.Keys) (byName, byEmail *user.User, err error)
	// Insert adds a user. It fails with ErrTaken or ErrSameID and has no effect then.
	Insert(u *user.User, keys user.Keys, index Index) error
	// Update replaces a user. Empty keys are unchanged. It fails with ErrTaken and has no effect then.
	Update(cur, next *user.User, keys user.Keys) error
	// Delete removes a user.
	Delete(cur *user.User) error
	// Append adds a row to the log, with its encoded details.
	Append(row *user.Activity, details []byte) error
	// Changed records a change for the observer of the store.
	Changed(change user.CommittedChange)
	// Request returns the stored request with a key, or nil.
	Request(key *user.IdempotencyKey) (*Request, error)
	// Result returns a stored result with its user and rows.
	Result(stored encoding.Result) (user.Result, error)
	// SaveRequest stores the result of a request about a user. It replaces an expired one.
	SaveRequest(key *user.IdempotencyKey, userID int64, result encoding.Result) error
}

// Request is a stored request.
type Request struct {
	Fingerprint []byte
	Created     time.Time
	Result      encoding.Result
}

// Index are the tokens of a user.
type Index struct {
	Tokens []tokens.Token
	// Text is a representation of the tokens, if the store has prepared one.
	Text string
}

// Prepared is the part of the work on a change that needs no transaction. The zero value has none.
type Prepared struct {
	Draft   *user.Draft // of a create
	Details []byte      // encoded details of its row
	Index   Index       // without tokens that depend on the ID
}

// Prepare prepares a change.
func Prepare(c *user.Change) (p Prepared) {
	if op, ok := c.Op.(*user.Create); ok {
		p.Draft = op.Draft(c.By)
		p.Details = encoding.EncodeMap(encoding.FormMap, p.Draft.Details())
		p.Index.Tokens = tokens.OfDraft(p.Draft, op.Keys)
	}
	return p
}

// index returns the tokens of the prepared user with an ID.
func (p *Prepared) index(id int64) Index {
	index := p.Index
	if all := tokens.WithSample(index.Tokens, id); len(all) > len(index.Tokens) {
		index = Index{Tokens: all}
	}
	return index
}

// maxIDAttempts bounds the attempts to find an unused ID. IDs have 22 random bits for
// each millisecond, so a second attempt is rare.
const maxIDAttempts = 64

// Change applies one change. After an expected failure (a *user.Error) the transaction
// is unmodified: such failures occur before or at the first write. prepared is the result of Prepare.
func Change(tx Tx, c *user.Change, prepared *Prepared) (user.Result, error) {
	d := decision{tx, c, prepared}
	key := c.IdempotencyKey
	if c.ValidateOnly {
		key = nil
	}
	if key != nil {
		result, found, err := d.storedResult(key)
		if err == nil {
			err = c.ReserveResult(result.User)
		}
		if found || err != nil {
			return result, err
		}
	}
	var result user.Result
	var err error
	if create, ok := c.Op.(*user.Create); ok {
		result, err = d.create(create)
	} else {
		result, err = d.alter(c.Op)
	}
	if err == nil && key != nil && !c.Prepare {
		err = d.saveResult(key, &result)
	}
	return result, err
}

// decision is one change in a transaction.
type decision struct {
	Tx

	c        *user.Change
	prepared *Prepared
}

// storedResult returns the stored result of a request, unless it has expired.
func (d decision) storedResult(key *user.IdempotencyKey) (result user.Result, found bool, err error) {
	r, err := d.Request(key)
	if err != nil || r == nil || d.Stamp().Earliest.Sub(r.Created) >= user.RequestIDLifetime {
		return user.Result{}, false, err
	}
	switch {
	case r.Result.Rows > 0 && r.Result.First < d.First():
		return user.Result{}, false, nil // pruned
	case !bytes.Equal(r.Fingerprint, key.Fingerprint[:]):
		return user.Result{}, false, user.NewRequestIDReusedError()
	}
	result, err = d.Result(r.Result)
	return result, err == nil, err
}

func (d decision) saveResult(key *user.IdempotencyKey, result *user.Result) error {
	stored := encoding.Result{Outcome: result.Outcome, Position: result.Position, User: result.User, Rows: len(result.Rows)}
	if stored.Rows > 0 {
		stored.First = result.Rows[0].Position
	}
	id := d.c.Op.Target()
	if result.User != nil {
		id = result.User.ID
	}
	return d.SaveRequest(key, id, stored)
}

// last returns the position of the last row.
func (d decision) last() int64 { return d.Stamp().NextPosition - 1 }

func (d decision) create(op *user.Create) (user.Result, error) {
	if d.c.ValidateOnly {
		decided := d.prepared.Draft.Decide(0, d.Stamp())
		byName, byEmail, err := d.Holders(op.Keys)
		if err != nil {
			return user.Result{}, err
		}
		if byName != nil || byEmail != nil {
			return d.conflict(op, byName, byEmail)
		}
		return d.valid(decided.User), nil
	}
	for range maxIDAttempts {
		id, err := d.NewID()
		if err != nil {
			return user.Result{}, fmt.Errorf("new user id: %w", err)
		}
		decided := d.prepared.Draft.Decide(id, d.Stamp())
		switch err = d.Insert(decided.User, op.Keys, d.prepared.index(id)); {
		case err == nil:
			return d.finish(user.OutcomeCreated, id, &decided)
		case errors.Is(err, ErrSameID):
			continue
		case !errors.Is(err, ErrTaken):
			return user.Result{}, err
		}
		byName, byEmail, err := d.Holders(op.Keys)
		if err != nil {
			return user.Result{}, err
		}
		return d.conflict(op, byName, byEmail)
	}
	return user.Result{}, fmt.Errorf("no unused user id found in %d attempts", maxIDAttempts)
}

// conflict resolves a create with a taken name by the conflict policy.
func (d decision) conflict(op *user.Create, byName, byEmail *user.User) (user.Result, error) {
	if byName == nil && byEmail == nil {
		return user.Result{}, errors.New("unique index entry without a user; check the store")
	}
	skip, instead, err := op.Resolve(d.c.OnConflict, byName, byEmail)
	switch {
	case err != nil:
		return user.Result{}, err
	case instead != nil:
		return d.alter(instead)
	case d.c.ValidateOnly:
		return d.valid(skip), nil
	default:
		return user.Result{Outcome: user.OutcomeUnchanged, User: clone(skip), Position: d.last()}, nil
	}
}

// alter applies an op other than a create, which fails if there is no user.
func (d decision) alter(op user.Op) (user.Result, error) {
	id := op.Target()
	cur, err := d.User(id)
	if err == nil {
		err = d.c.ReserveResult(cur)
	}
	if err != nil {
		return user.Result{}, err
	}
	decided, err := op.Decide(cur, d.Stamp(), d.c.By)
	if err != nil {
		return user.Result{}, err
	}
	keys, err := changedKeys(op, cur, decided.User)
	if err != nil {
		return user.Result{}, err
	}
	if d.c.ValidateOnly {
		if err := d.taken(keys, id); err != nil {
			return user.Result{}, err
		}
		return d.valid(decided.User), nil
	}
	if !decided.Store && !decided.Changed() {
		return user.Result{Outcome: user.OutcomeUnchanged, User: clone(decided.User), Position: d.last()}, nil
	}
	if decided.Store {
		if err := d.write(cur, decided.User, keys); err != nil {
			return user.Result{}, err
		}
	}
	outcome := user.OutcomeUpdated
	if !decided.Changed() {
		outcome = user.OutcomeUnchanged // only the status time changed
	}
	decided.User = clone(decided.User) // it may be a user of the transaction
	return d.finish(outcome, id, &decided)
}

// write updates or deletes a user.
func (d decision) write(cur, next *user.User, keys user.Keys) error {
	if next == nil {
		return d.Delete(cur)
	}
	err := d.Update(cur, next, keys)
	if errors.Is(err, ErrTaken) {
		if taken := d.taken(keys, cur.ID); taken != nil {
			return taken
		}
	}
	return err
}

// changedKeys returns the normal forms of the names that change; others are empty.
func changedKeys(op user.Op, cur, next *user.User) (keys user.Keys, err error) {
	if next == nil {
		return keys, nil
	}
	if update, ok := op.(*user.Update); ok {
		keys = update.Keys
	}
	var failure *user.Error
	switch {
	case next.Username == cur.Username:
		keys.Username = ""
	case keys.Username == "":
		if keys.Username, failure = user.UsernameKey(next.Username); failure != nil {
			return keys, failure
		}
	}
	switch {
	case next.Email == cur.Email:
		keys.Email = ""
	case keys.Email == "":
		if keys.Email, failure = user.EmailKey(next.Email); failure != nil {
			return keys, failure
		}
	}
	return keys, nil
}

// taken returns an error if another user than id has one of the names.
func (d decision) taken(keys user.Keys, id int64) error {
	byName, byEmail, err := d.Holders(keys)
	switch {
	case err != nil:
		return err
	case byName != nil && byName.ID != id:
		return user.NewTakenError(user.UsernameTaken, byName.Deleted())
	case byEmail != nil && byEmail.ID != id:
		return user.NewTakenError(user.EmailTaken, byEmail.Deleted())
	}
	return nil
}

func (d decision) valid(u *user.User) user.Result {
	return user.Result{Outcome: user.OutcomeValid, User: clone(u), Position: d.last()}
}

// finish writes the log rows of a decision and returns the result, which owns the user and the rows of the decision.
func (d decision) finish(outcome user.Outcome, id int64, decided *user.Decision) (user.Result, error) {
	stamp := d.Stamp()
	for i := range decided.Rows {
		row := &decided.Rows[i]
		if row.Position != stamp.NextPosition+int64(i) || !row.Time.Equal(stamp.LogTime) {
			return user.Result{}, fmt.Errorf("row %d of the decision: position %d, time %s, want position %d, time %s",
				i, row.Position, row.Time, stamp.NextPosition+int64(i), stamp.LogTime)
		}
		details := d.prepared.Details
		if outcome != user.OutcomeCreated {
			details = encoding.EncodeMap(encoding.FormMap, row.Details)
		}
		if err := d.Append(row, details); err != nil {
			return user.Result{}, err
		}
	}
	d.Changed(user.CommittedChange{UserID: id, User: decided.User.Summary(), Rows: user.Summaries(decided.Rows), Origin: d.c.By.Origin})
	return user.Result{Outcome: outcome, User: decided.User, Rows: decided.Rows, Position: d.last()}, nil
}

// clone returns a copy, so that a result does not share a user with the store or with another result.
func clone(u *user.User) *user.User {
	if u == nil {
		return nil
	}
	return u.Clone()
}

// CloneRows returns a deep copy of rows.
func CloneRows(rows []user.Activity) []user.Activity {
	clones := make([]user.Activity, len(rows))
	for i, row := range rows {
		row.Details = maps.Clone(row.Details)
		clones[i] = row
	}
	return clones
}
