package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/yourorg/userservice/service/telemetry"
	"github.com/yourorg/userservice/service/user"
)

const (
	// tidyEvery is how often the janitor looks.
	tidyEvery = time.Minute
	// purgeBatch, redactChunk and forgetChunk bound what one step may hold up
	// writers with: users, log rows and request ids.
	purgeBatch  = 100
	redactChunk = 500
	forgetChunk = 1000
	// janitorActor is who the log says has purged a user.
	janitorActor = "userd"
)

// janitor purges users whose time has come and drops request ids past their
// lifetime. Everything it does may be interrupted anywhere and done again.
type janitor struct {
	store   user.Store
	clock   func() time.Time
	log     *slog.Logger
	metrics *telemetry.Metrics
}

// run tidies at once and then again and again, until the context ends.
func (j *janitor) run(ctx context.Context) {
	ticker := time.NewTicker(tidyEvery)
	defer ticker.Stop()
	for {
		j.tidy(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (j *janitor) tidy(ctx context.Context) {
	defer nextRound(ctx, j.log, "housekeeping")
	began := j.clock()
	purged, err := j.purgeAll(ctx)
	j.count(ctx, telemetry.StepPurge, purged, err)
	j.tell(ctx, "purged users", purged, j.clock().Sub(began), err)
	began = j.clock()
	forgotten, err := j.forgetAll(ctx)
	j.count(ctx, telemetry.StepExpire, forgotten, err)
	j.tell(ctx, "forgot request ids", forgotten, j.clock().Sub(began), err)
}

// count leaves out the failure of a step that the server's end cut short.
func (j *janitor) count(ctx context.Context, step string, count int, err error) {
	if err == nil || ctx.Err() == nil {
		j.metrics.HousekeepingDone(step, count, j.clock(), err)
	}
}

func (j *janitor) tell(ctx context.Context, what string, count int, took time.Duration, err error) {
	switch {
	case ctx.Err() != nil:
	case err != nil: // what was left undone is taken up again the next time
		j.log.LogAttrs(ctx, slog.LevelError, "housekeeping failed",
			slog.String("step", what), slog.Int("count", count), slog.Any("error", err))
	case count > 0:
		j.log.LogAttrs(ctx, slog.LevelInfo, what, slog.Int("count", count), slog.Duration("duration", took))
	}
}

func (j *janitor) purgeAll(ctx context.Context) (purged int, err error) {
	for {
		due, err := j.store.DuePurges(ctx, purgeBatch)
		if err != nil {
			return purged, err
		}
		// One user who cannot be purged does not keep the others from it.
		var failures error
		gone := 0
		for _, id := range due {
			there, err := j.purge(ctx, id)
			switch {
			case err != nil:
				failures = errors.Join(failures, err)
			case there:
				purged++
			default:
				gone++
			}
		}
		if gone == purgeBatch { // the same would be due again and again
			failures = fmt.Errorf("%d users are due to be purged that do not exist; check the store", gone)
		}
		if failures != nil || len(due) < purgeBatch {
			return purged, failures
		}
	}
}

// purge redacts a user's rows and then removes the user: in that order, so that one
// that was interrupted is still due. It reports whether the user was there.
func (j *janitor) purge(ctx context.Context, id int64) (there bool, err error) {
	for {
		more, err := j.store.Redact(ctx, id, redactChunk)
		if err != nil {
			return false, err
		}
		if !more {
			break
		}
	}
	_, err = user.ApplyOne(ctx, j.store, user.Change{
		Op: &user.Purge{ID: id}, By: user.Author{Actor: janitorActor},
	})
	if user.HasReason(err, user.UserNotFound) {
		return false, nil // another node was faster
	}
	return err == nil, err
}

func (j *janitor) forgetAll(ctx context.Context) (forgotten int, err error) {
	for {
		n, err := j.store.ExpireRequestIDs(ctx, forgetChunk)
		forgotten += n
		if err != nil || n < forgetChunk {
			return forgotten, err
		}
	}
}
