package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// KeysOptions say where keys come from and how long they count.
type KeysOptions struct {
	// Location is the path of a file, or an https URL; http is taken for loopback
	// hosts only. Required. At most 1 MiB is read.
	Location string
	// Refresh is how often keys are read again. 0: 5 s for a file, 10 min for a URL.
	Refresh time.Duration
	// Retry is how soon they are after a failure. 0: the shorter of Refresh and 30 s.
	Retry time.Duration
	// Cooldown is the least time between two reads on behalf of tokens that name a
	// key not known here. 0: 30 s, for a file 5 s.
	Cooldown time.Duration
	// MaxStale is how long keys count that could not be read again. 0: 1 h.
	MaxStale time.Duration
	// Timeout bounds one read. 0: 5 s.
	Timeout time.Duration
	Client  *http.Client     // nil: one of its own
	Now     func() time.Time // nil: time.Now
	Logger  *slog.Logger     // required
}

// Keys is the set of public keys that tokens may be signed with, kept up to date.
//
// Two budgets of their own let it read the set again. The period does, whatever else
// happens; and a token that names an unknown key does, at most once in a cool-down,
// however many come. So a flood of invented names costs one read in a cool-down, and
// cannot keep a new key from being seen. There is never more than one read at a time.
//
// A read that fails changes nothing until the keys are older than MaxStale. From
// then on there are none, and every token is refused. It is safe for use by many
// goroutines.
type Keys struct {
	opts   KeysOptions
	source source

	mu     sync.Mutex
	set    *keySet // nil: there has been none yet; a new one for every new content
	digest [sha256.Size]byte
	readAt time.Time // when set was last seen to be the present one
	flight *flight   // the read that is under way; nil: none is
	asked  time.Time // when an unknown name last caused a read
	failed time.Time // when the last read failed; zero: it did not
}

// flight is a read that is under way, for all who wait for it.
type flight struct {
	landed chan struct{} // closed when it has ended
	err    error         // how; to be read after that
}

// NewKeys returns keys that have yet to be read, by Load or Run. Its error says what is
// wrong with the location.
func NewKeys(opts KeysOptions) (*Keys, error) {
	k := &Keys{}
	orElse(&opts.MaxStale, time.Hour)
	orElse(&opts.Timeout, 5*time.Second)
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if isURL(opts.Location) {
		if opts.Client == nil {
			opts.Client = newClient()
		}
		var err error
		if k.source, err = urlSource(opts.Location, opts.Client); err != nil {
			return nil, fmt.Errorf("keys: %w", err)
		}
		orElse(&opts.Refresh, 10*time.Minute)
		orElse(&opts.Cooldown, 30*time.Second)
	} else {
		if opts.Location == "" {
			return nil, errors.New("keys: no file and no URL")
		}
		k.source = fileSource(opts.Location)
		orElse(&opts.Refresh, 5*time.Second)
		orElse(&opts.Cooldown, 5*time.Second)
	}
	orElse(&opts.Retry, min(opts.Refresh, 30*time.Second))
	k.opts = opts
	return k, nil
}

func orElse(d *time.Duration, otherwise time.Duration) {
	if *d == 0 {
		*d = otherwise
	}
}

// Load reads the keys now. A server may take its error for a reason not to start, or
// go on: every token is refused until a read succeeds.
func (k *Keys) Load(ctx context.Context) error { return k.read(ctx, ctx, false) }

// Run reads the keys again and again, until the context ends.
func (k *Keys) Run(ctx context.Context) {
	timer := time.NewTimer(k.untilNext())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		wait := k.opts.Refresh
		if k.read(ctx, ctx, false) != nil {
			wait = k.opts.Retry
		}
		timer.Reset(wait)
	}
}

// untilNext is how long the keys need no look, when one may have been taken already.
func (k *Keys) untilNext() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case !k.failed.IsZero():
		return k.failed.Add(k.opts.Retry).Sub(k.opts.Now())
	case k.set == nil:
		return 0
	}
	return k.readAt.Add(k.opts.Refresh).Sub(k.opts.Now())
}

// ReadAt is when the keys were last read with success; the zero time if never.
func (k *Keys) ReadAt() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.readAt
}

// errNoKeys is the detail where keys could not be had.
var errNoKeys = errors.New("the keys could not be read for too long")

// current returns the keys that count.
func (k *Keys) current() (*keySet, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.set == nil || k.opts.Now().Sub(k.readAt) > k.opts.MaxStale {
		return nil, refuse(CauseNoKeys, errNoKeys)
	}
	return k.set, nil
}

// find returns the keys that a token may be signed with, and the set that they are of.
// A name that is not known may be that of a new key, so the set is read again, if the
// cool-down lets it.
func (k *Keys) find(ctx context.Context, id string, algorithm jose.SignatureAlgorithm) ([]verifyKey, *keySet, error) {
	set, err := k.current()
	if err == nil {
		if fits, named := set.find(id, algorithm); named || id == "" {
			return fits, set, nil
		}
	}
	// The read is for all who wait, so it outlives the one who caused it. Its failure is
	// logged; what counts is what there is afterwards, whoever has read it.
	_ = k.read(ctx, context.WithoutCancel(ctx), true)
	if set, err = k.current(); err != nil {
		return nil, nil, err
	}
	fits, _ := set.find(id, algorithm)
	return fits, set, nil
}

// errCooling is why a name that is not known causes no read.
var errCooling = errors.New("the keys were read a moment ago")

// read reads the set in the context work, or waits in ctx for the read that is under
// way. A read that is rationed, since a token's name for its key caused it, does not
// begin within the cool-down. All this is decided at once: who would join a read that
// has just ended must not begin one of his own.
func (k *Keys) read(ctx, work context.Context, rationed bool) error {
	k.mu.Lock()
	f, join := k.flight, k.flight != nil
	if !join {
		now := k.opts.Now()
		if rationed && !k.asked.IsZero() && now.Sub(k.asked) < k.opts.Cooldown {
			k.mu.Unlock()
			return errCooling
		}
		if rationed {
			k.asked = now
		}
		f = &flight{landed: make(chan struct{}), err: errors.New("the read broke off")}
		k.flight = f
	}
	k.mu.Unlock()
	if !join {
		k.fly(work, f)
		return f.err
	}
	select {
	case <-f.landed:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fly carries out a read.
func (k *Keys) fly(ctx context.Context, f *flight) {
	defer func() {
		k.mu.Lock()
		k.flight, k.failed = nil, time.Time{}
		if f.err != nil {
			k.failed = k.opts.Now()
		}
		k.mu.Unlock()
		close(f.landed)
	}()
	reading, cancel := context.WithTimeout(ctx, k.opts.Timeout)
	defer cancel()
	body, err := k.source(reading)
	if err == nil {
		err = k.take(ctx, body)
	}
	f.err = err
	if err == nil || ctx.Err() != nil {
		return
	}
	level, what := slog.LevelWarn, "the keys for tokens could not be read"
	if k.Trouble() != nil {
		level, what = slog.LevelError, "the keys for tokens could not be read, and no token can be checked"
	}
	k.opts.Logger.LogAttrs(ctx, level, what, slog.Any("error", err), slog.Time("last_read", k.ReadAt()))
}

// Trouble is why no token can be checked at present; nil: tokens can be.
func (k *Keys) Trouble() error {
	if _, err := k.current(); err != nil {
		return errNoKeys
	}
	return nil
}

// take makes what was read the present set.
func (k *Keys) take(ctx context.Context, body []byte) error {
	digest := sha256.Sum256(body)
	k.mu.Lock()
	if k.set != nil && k.digest == digest {
		k.readAt = k.opts.Now()
		k.mu.Unlock()
		return nil
	}
	k.mu.Unlock()
	set, passed, err := parseKeySet(body)
	if err != nil {
		return err
	}
	k.mu.Lock()
	k.set, k.digest, k.readAt = set, digest, k.opts.Now()
	k.mu.Unlock()
	attrs := []slog.Attr{slog.Int("keys", len(set.keys))}
	level := slog.LevelInfo
	if len(passed) > 0 || len(set.keys) == 0 {
		level = slog.LevelWarn
		attrs = append(attrs, slog.Any("passed_over", errors.Join(passed...)))
	}
	k.opts.Logger.LogAttrs(ctx, level, "the keys for tokens have changed", attrs...)
	return nil
}
