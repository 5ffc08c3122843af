// Package janitor purges deleted users and prunes the log after their retention, and deletes expired request ids.
package janitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/yourorg/userservice/service/panics"
	"github.com/yourorg/userservice/service/telemetry"
	"github.com/yourorg/userservice/service/user"
)

const (
	interval = time.Minute
	// The batch sizes bound how long one write of the janitor delays other writers.
	purgeBatch  = 100
	expireBatch = 1000
	pruneBatch  = 100
	// actor is the actor of purges in the log.
	actor = "userd"
)

// Janitor does the housekeeping of a store. Its work can be interrupted at any point and repeated.
type Janitor struct {
	Store   user.Store
	Clock   func() time.Time
	Log     *slog.Logger
	Metrics *telemetry.Metrics
	// LogRetention is the age at which log rows are pruned; 0: never. It must not be less than
	// user.RequestIDLifetime.
	LogRetention time.Duration
}

// Run cleans up at once and then at intervals, until ctx is done.
func (j *Janitor) Run(ctx context.Context) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		j.cleanUp(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (j *Janitor) cleanUp(ctx context.Context) {
	_ = panics.Task(j.Log, "housekeeping", func(ctx context.Context) error { // a panic ends only this round
		j.do(ctx, telemetry.StepPurge, "purged users", j.purgeAll)
		j.do(ctx, telemetry.StepExpire, "expired request ids", j.expireRequestIDs)
		j.do(ctx, telemetry.StepPrune, "pruned log rows", j.pruneLog)
		return nil
	})(ctx)
}

// do runs a step, and counts and logs its result. A failure caused by the shutdown is ignored.
func (j *Janitor) do(ctx context.Context, step, message string, run func(context.Context) (int, error)) {
	start := j.Clock()
	count, err := run(ctx)
	if err == nil || ctx.Err() == nil {
		j.Metrics.HousekeepingDone(step, count, j.Clock(), err)
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		j.Log.LogAttrs(ctx, slog.LevelError, "housekeeping failed",
			slog.String("step", step), slog.Int("count", count), slog.Any("error", err))
	case count > 0:
		j.Log.LogAttrs(ctx, slog.LevelInfo, message, slog.Int("count", count), slog.Duration("duration", j.Clock().Sub(start)))
	}
}

func (j *Janitor) purgeAll(ctx context.Context) (purged int, err error) {
	for {
		due, err := j.Store.DuePurges(ctx, purgeBatch)
		if err != nil {
			return purged, err
		}
		// A failure of one user does not prevent the purge of others.
		var failures error
		missing := 0
		for _, id := range due {
			existed, err := j.purge(ctx, id)
			switch {
			case err != nil:
				failures = errors.Join(failures, err)
			case existed:
				purged++
			default:
				missing++
			}
		}
		if missing == purgeBatch { // the same batch would be due again
			failures = fmt.Errorf("%d users due for purge do not exist; check the store", missing)
		}
		if failures != nil || len(due) < purgeBatch {
			return purged, failures
		}
	}
}

// purge purges a user, and reports whether it existed.
func (j *Janitor) purge(ctx context.Context, id int64) (existed bool, err error) {
	_, err = user.ApplyPurge(ctx, j.Store, &user.StartPurge{ID: id}, user.Change{By: user.Author{Actor: actor}})
	if user.HasReason(err, user.UserNotFound) {
		return false, nil // purged by a call
	}
	return err == nil, err
}

func (j *Janitor) expireRequestIDs(ctx context.Context) (expired int, err error) {
	for {
		n, err := j.Store.ExpireRequestIDs(ctx, expireBatch)
		expired += n
		if err != nil || n < expireBatch {
			return expired, err
		}
	}
}

// pruneLog prunes rows until none is due, or for an interval, so that it does not delay the other steps. It
// pauses after each batch for as long as the batch took, so that it takes at most half of the writer's time.
func (j *Janitor) pruneLog(ctx context.Context) (pruned int, err error) {
	for begin := time.Now(); j.LogRetention > 0 && time.Since(begin) < interval; {
		start := time.Now()
		n, err := j.Store.Prune(ctx, j.LogRetention, pruneBatch)
		pruned += n
		if err != nil || n < pruneBatch {
			return pruned, err
		}
		select {
		case <-time.After(time.Since(start)):
		case <-ctx.Done():
			return pruned, context.Cause(ctx)
		}
	}
	return pruned, nil
}
