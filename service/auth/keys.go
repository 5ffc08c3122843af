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

	"github.com/yourorg/userservice/service/fair"
)

// KeysOptions configure Keys.
type KeysOptions struct {
	// Location is a file path or an https URL. http is accepted for loopback hosts only.
	// Required. The set may have at most 1 MiB.
	Location string
	// Refresh is the reload interval. Default: 5 s for a file, 10 min for a URL.
	Refresh time.Duration
	// Retry is the reload interval after a failure. Default: min(Refresh, 30 s).
	Retry time.Duration
	// Cooldown is the minimum interval between reloads that an unknown key id causes.
	// Default: 5 s for a file, 30 s for a URL.
	Cooldown time.Duration
	// MaxStale is how long keys stay valid without a successful reload. Default: 1 h.
	MaxStale time.Duration
	// Timeout bounds one reload. Default: 5 s.
	Timeout time.Duration
	Client  *http.Client     // nil: a default client
	Now     func() time.Time // nil: time.Now
	Logger  *slog.Logger     // required
}

// Keys is a set of public keys for verifying tokens, reloaded periodically by Run. It is
// safe for concurrent use.
//
// A token with an unknown key id causes a reload too, at most one each Cooldown however
// many tokens arrive. The periodic reload is independent of that limit, so a flood of
// unknown key ids cannot delay key rotation. Concurrent reloads are merged into one.
//
// A failed reload keeps the current keys until they are older than MaxStale; then every
// token is rejected.
type Keys struct {
	opts   KeysOptions
	source source

	mu         sync.Mutex
	set        *keySet // nil before the first load; replaced when the content changes
	digest     [sha256.Size]byte
	readAt     time.Time // time of the last successful reload
	flight     *flight   // the reload in progress, or nil
	onDemandAt time.Time // time of the last reload for an unknown key id
	failedAt   time.Time // time of the last reload if it failed, else zero
}

// flight is a reload in progress, shared by all callers that wait for it.
type flight struct {
	done chan struct{} // closed when the reload has finished
	err  error         // the result; valid once done is closed
}

// NewKeys returns an empty set. Load or Run fills it.
func NewKeys(opts KeysOptions) (*Keys, error) {
	k := &Keys{}
	setDefault(&opts.MaxStale, time.Hour)
	setDefault(&opts.Timeout, 5*time.Second)
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
		setDefault(&opts.Refresh, 10*time.Minute)
		setDefault(&opts.Cooldown, 30*time.Second)
	} else {
		if opts.Location == "" {
			return nil, errors.New("keys: location: expected a file or an https URL")
		}
		k.source = fileSource(opts.Location)
		setDefault(&opts.Refresh, 5*time.Second)
		setDefault(&opts.Cooldown, 5*time.Second)
	}
	setDefault(&opts.Retry, min(opts.Refresh, 30*time.Second))
	k.opts = opts
	return k, nil
}

func setDefault(d *time.Duration, def time.Duration) {
	if *d == 0 {
		*d = def
	}
}

// Load reloads the keys now. Until one reload succeeds, every token is rejected.
func (k *Keys) Load(ctx context.Context) error { return k.read(ctx, ctx, false) }

// Run reloads the keys periodically until ctx is done.
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

func (k *Keys) untilNext() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case !k.failedAt.IsZero():
		return k.failedAt.Add(k.opts.Retry).Sub(k.opts.Now())
	case k.set == nil:
		return 0
	}
	return k.readAt.Add(k.opts.Refresh).Sub(k.opts.Now())
}

// ReadAt returns the time of the last successful reload, or the zero time.
func (k *Keys) ReadAt() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.readAt
}

var errNoKeys = errors.New("JWKS is missing or too old")

// current returns the key set, or an error if it is missing or too old.
func (k *Keys) current() (*keySet, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.set == nil || k.opts.Now().Sub(k.readAt) > k.opts.MaxStale {
		return nil, newRefusedError(CauseNoKeys, errNoKeys)
	}
	return k.set, nil
}

// find returns the keys with the id that support the algorithm, and the set that they are
// from. An unknown id causes a reload, subject to Cooldown.
func (k *Keys) find(ctx context.Context, id string, algorithm jose.SignatureAlgorithm) ([]verifyKey, *keySet, error) {
	set, err := k.current()
	if err == nil {
		if matches, named := set.find(id, algorithm); named || id == "" {
			return matches, set, nil
		}
	}
	// Other callers may wait for this reload, so it must not be canceled with ctx. A failure
	// is logged by fetch; the set after the reload decides.
	_ = k.read(ctx, context.WithoutCancel(ctx), true)
	if set, err = k.current(); err != nil {
		return nil, nil, err
	}
	matches, _ := set.find(id, algorithm)
	return matches, set, nil
}

var errCooldown = errors.New("JWKS was reloaded recently")

// read reloads the set with the context work, or waits in ctx for the reload in progress.
// onDemand marks a reload for an unknown key id, which is subject to Cooldown. Joining and
// the cool-down are decided under one lock: a caller that just missed a reload must not
// start another one.
func (k *Keys) read(ctx, work context.Context, onDemand bool) error {
	k.mu.Lock()
	f, join := k.flight, k.flight != nil
	if !join {
		now := k.opts.Now()
		if onDemand && !k.onDemandAt.IsZero() && now.Sub(k.onDemandAt) < k.opts.Cooldown {
			k.mu.Unlock()
			return errCooldown
		}
		if onDemand {
			k.onDemandAt = now
		}
		f = &flight{done: make(chan struct{}), err: errors.New("JWKS reload panicked")}
		k.flight = f
	}
	k.mu.Unlock()
	slot := fair.FromContext(ctx)
	defer slot.Resume(slot.Release())
	if !join {
		k.fetch(work, f)
		return f.err
	}
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *Keys) fetch(ctx context.Context, f *flight) {
	defer func() {
		k.mu.Lock()
		k.flight, k.failedAt = nil, time.Time{}
		if f.err != nil {
			k.failedAt = k.opts.Now()
		}
		k.mu.Unlock()
		close(f.done)
	}()
	reading, cancel := context.WithTimeout(ctx, k.opts.Timeout)
	defer cancel()
	body, err := k.source(reading)
	if err == nil {
		err = k.update(ctx, body)
	}
	f.err = err
	if err == nil || ctx.Err() != nil {
		return
	}
	level, message := slog.LevelWarn, "JWKS reload failed"
	if k.Err() != nil {
		level, message = slog.LevelError, "JWKS reload failed, tokens cannot be verified"
	}
	k.opts.Logger.LogAttrs(ctx, level, message, slog.Any("error", err), slog.Time("last_read", k.ReadAt()))
}

// Err returns an error if tokens cannot be verified at present.
func (k *Keys) Err() error {
	if _, err := k.current(); err != nil {
		return errNoKeys
	}
	return nil
}

// update replaces the current set if body differs from it.
func (k *Keys) update(ctx context.Context, body []byte) error {
	digest := sha256.Sum256(body)
	k.mu.Lock()
	if k.set != nil && k.digest == digest {
		k.readAt = k.opts.Now()
		k.mu.Unlock()
		return nil
	}
	k.mu.Unlock()
	set, skipped, err := parseKeySet(body)
	if err != nil {
		return err
	}
	k.mu.Lock()
	k.set, k.digest, k.readAt = set, digest, k.opts.Now()
	k.mu.Unlock()
	attrs := []slog.Attr{slog.Int("keys", len(set.keys))}
	level := slog.LevelInfo
	if len(skipped) > 0 || len(set.keys) == 0 {
		level = slog.LevelWarn
		attrs = append(attrs, slog.Any("skipped", errors.Join(skipped...)))
	}
	k.opts.Logger.LogAttrs(ctx, level, "JWKS changed", attrs...)
	return nil
}
