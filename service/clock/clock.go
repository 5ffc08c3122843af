// Package clock keeps a wrong system clock from doing harm that cannot be undone.
//
// A [Guard] compares the system clock with the elapsed time, which nobody sets: while the
// process runs, over a restart on the same boot of the machine, and, as far as that says
// anything, with the time at which a store was last open. It gives two times: the best
// known one, and one that has certainly come. It leaves the kinds of clock to the
// operating system, and what is done with the times to its caller.
package clock

import (
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	// Tolerance is by how much the system clock may be off the elapsed time within
	// Settle: clocks are corrected by small steps all the time.
	Tolerance = time.Minute
	// Settle is how long a clock that has jumped must agree with the elapsed time
	// until it is taken as right.
	Settle = time.Hour
	// plausibleDowntime is how long a store may have been closed, where only the
	// system clock tells for how long it was.
	plausibleDowntime = 366 * 24 * time.Hour
)

// Reading is one look at the clocks of the machine.
type Reading struct {
	Wall    time.Time     // the system clock
	Elapsed time.Duration // since the machine started; never goes back, nobody sets it
	Boot    string        // identifies the start of the machine; empty: unknown
}

// Source reads the clocks.
type Source func() Reading

// Steady returns a source whose elapsed time follows the clock, however that is set: as
// if the time had passed.
func Steady(now func() time.Time) Source {
	start := time.Unix(0, 0)
	return func() Reading {
		wall := now()
		return Reading{Wall: wall, Elapsed: wall.Sub(start), Boot: "steady"}
	}
}

// Mark is what a store keeps of the time, for the next start.
type Mark struct {
	Time    time.Time     // had certainly come; zero: nothing is known
	Elapsed time.Duration // of the reading at Time
	Boot    string        // of that reading; empty: not to be compared
}

// Times are what is known of the present.
type Times struct {
	Best time.Time // the best known time
	Due  time.Time // has certainly come: what cannot be undone is decided by it
}

// Status is what operators see.
type Status struct {
	// Unconfirmed says why the system clock is not taken as right; empty: it is.
	Unconfirmed string
	// Forward and Backward count jumps.
	Forward, Backward int64
}

// point is a time with the elapsed time at which it was.
type point struct {
	time    time.Time
	elapsed time.Duration
}

// at returns the time that the point leads to.
func (p point) at(elapsed time.Duration) time.Time { return p.time.Add(elapsed - p.elapsed) }

// Guard watches a clock. Its methods are safe for use by many goroutines.
type Guard struct {
	read Source
	log  *slog.Logger

	mu     sync.Mutex
	base   point         // known to be right, or to lie before the present
	slack  time.Duration // by how much base may lie before it
	fresh  bool          // nothing was kept: any jump may be the one to the right time
	best   point         // the last reading that fits the base
	steady point         // the first reading that all since agree with
	status Status
}

// New returns a guard that starts from what was kept. trusted takes the system clock as
// right as it is.
func New(read Source, kept Mark, trusted bool, log *slog.Logger) *Guard {
	g := &Guard{read: read, log: log}
	r := read()
	g.base, g.steady = point{r.Wall, r.Elapsed}, point{r.Wall, r.Elapsed}
	switch {
	case trusted:
	case kept.Time.IsZero():
		g.fresh = true
	case kept.Boot != "" && kept.Boot == r.Boot && r.Elapsed >= kept.Elapsed:
		g.base = point{kept.Time, kept.Elapsed}
	default:
		g.base, g.slack = point{kept.Time, r.Elapsed}, plausibleDowntime
	}
	g.best = point{g.base.at(r.Elapsed), r.Elapsed}
	if drift := r.Wall.Sub(g.best.time); !g.fits(drift) {
		g.jumped(drift, r.Wall)
	}
	g.observe(r)
	if g.status.Unconfirmed != "" {
		log.Warn("system clock not confirmed", "reason", g.status.Unconfirmed)
	}
	return g
}

// Now returns what is known of the present.
func (g *Guard) Now() Times {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.observe(g.read())
}

// Mark returns what is to be kept for the next start.
func (g *Guard) Mark() Mark {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.read()
	kept := Mark{Time: g.observe(r).Due, Elapsed: r.Elapsed, Boot: r.Boot}
	switch {
	case g.fresh:
		kept.Time = g.best.at(r.Elapsed)
	case g.slack > 0:
		kept.Boot = "" // how long the store was closed is not known yet
	}
	return kept
}

// Status returns what operators see.
func (g *Guard) Status() Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.observe(g.read())
	return g.status
}

func (g *Guard) fits(drift time.Duration) bool {
	return drift >= -Tolerance && (g.fresh || drift <= Tolerance+g.slack)
}

func (g *Guard) observe(r Reading) Times {
	if by := r.Wall.Sub(g.steady.at(r.Elapsed)); by < -Tolerance || by > Tolerance {
		g.jumped(by, r.Wall)
		g.steady = point{r.Wall, r.Elapsed}
	}
	if r.Elapsed-g.steady.elapsed >= Settle {
		if g.status.Unconfirmed != "" {
			g.log.Info("system clock confirmed", "clock", r.Wall, "expected", g.base.at(r.Elapsed))
		}
		g.base, g.slack, g.steady = point{r.Wall, r.Elapsed}, 0, point{r.Wall, r.Elapsed}
		g.fresh = false
	}
	if g.fresh && r.Wall.Before(g.base.at(r.Elapsed)) {
		g.base = point{r.Wall, r.Elapsed}
	}
	expected := g.base.at(r.Elapsed)
	drift := r.Wall.Sub(expected)
	if g.fits(drift) {
		g.best = point{r.Wall, r.Elapsed}
	}
	g.status.Unconfirmed = g.unconfirmed(r, drift)
	best := g.best.at(r.Elapsed)
	return Times{Best: best, Due: earlier(best, expected)}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (g *Guard) jumped(by time.Duration, wall time.Time) {
	if by > 0 {
		g.status.Forward++
	} else {
		g.status.Backward++
	}
	g.log.Warn("system clock jumped", "by", by.Round(time.Millisecond), "clock", wall)
}

// unconfirmed says in what the clock is not taken as right.
func (g *Guard) unconfirmed(r Reading, drift time.Duration) string {
	wait := (Settle - (r.Elapsed - g.steady.elapsed)).Round(time.Second)
	switch {
	case !g.fits(drift):
		direction := "ahead of"
		if drift < 0 {
			direction = "behind"
		}
		return fmt.Sprintf("the system clock, %s, is %v %s the expected time, which is used instead; "+
			"nothing is purged by the system clock until it has been steady for another %v",
			r.Wall.UTC().Format(time.RFC3339), drift.Abs().Round(time.Second), direction, wait)
	case drift > Tolerance && g.fresh:
		return fmt.Sprintf("the system clock has gone forward by %v since the store was created; nothing is purged by it until it has been steady for another %v",
			drift.Round(time.Second), wait)
	case drift > Tolerance:
		return fmt.Sprintf("the store was last open %v ago by the system clock; nothing is purged by it until it has been steady for another %v",
			drift.Round(time.Second), wait)
	}
	return ""
}
