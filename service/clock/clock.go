// Package clock keeps a wrong system clock from doing harm that cannot be undone.
//
// A [Monitor] compares the system clock with the elapsed time, which nobody sets: while the
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

// FromWallClock returns a source whose elapsed time follows the clock, however that is set: as
// if the time had passed.
func FromWallClock(now func() time.Time) Source {
	start := time.Unix(0, 0)
	return func() Reading {
		wall := now()
		return Reading{Wall: wall, Elapsed: wall.Sub(start), Boot: "steady"}
	}
}

// Checkpoint is what a store keeps of the time, for the next start.
type Checkpoint struct {
	Time    time.Time     // had certainly come; zero: nothing is known
	Elapsed time.Duration // of the reading at Time
	Boot    string        // of that reading; empty: not to be compared
}

// Times are what is known of the present.
type Times struct {
	Best     time.Time // the best known time
	Earliest time.Time // has certainly come: what cannot be undone is decided by it
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

// Monitor watches a clock. Its methods are safe for use by many goroutines.
type Monitor struct {
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
func New(read Source, kept Checkpoint, trusted bool, log *slog.Logger) *Monitor {
	m := &Monitor{read: read, log: log}
	r := read()
	m.base, m.steady = point{r.Wall, r.Elapsed}, point{r.Wall, r.Elapsed}
	switch {
	case trusted:
	case kept.Time.IsZero():
		m.fresh = true
	case kept.Boot != "" && kept.Boot == r.Boot && r.Elapsed >= kept.Elapsed:
		m.base = point{kept.Time, kept.Elapsed}
	default:
		m.base, m.slack = point{kept.Time, r.Elapsed}, plausibleDowntime
	}
	m.best = point{m.base.at(r.Elapsed), r.Elapsed}
	if drift := r.Wall.Sub(m.best.time); !m.fits(drift) {
		m.jumped(drift, r.Wall)
	}
	m.observe(r)
	if m.status.Unconfirmed != "" {
		log.Warn("system clock not confirmed", "reason", m.status.Unconfirmed)
	}
	return m
}

// Now returns what is known of the present.
func (m *Monitor) Now() Times {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.observe(m.read())
}

// Checkpoint returns what is to be kept for the next start.
func (m *Monitor) Checkpoint() Checkpoint {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.read()
	kept := Checkpoint{Time: m.observe(r).Earliest, Elapsed: r.Elapsed, Boot: r.Boot}
	switch {
	case m.fresh:
		kept.Time = m.best.at(r.Elapsed)
	case m.slack > 0:
		kept.Boot = "" // how long the store was closed is not known yet
	}
	return kept
}

// Status returns what operators see.
func (m *Monitor) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.observe(m.read())
	return m.status
}

func (m *Monitor) fits(drift time.Duration) bool {
	return drift >= -Tolerance && (m.fresh || drift <= Tolerance+m.slack)
}

func (m *Monitor) observe(r Reading) Times {
	if by := r.Wall.Sub(m.steady.at(r.Elapsed)); by < -Tolerance || by > Tolerance {
		m.jumped(by, r.Wall)
		m.steady = point{r.Wall, r.Elapsed}
	}
	if r.Elapsed-m.steady.elapsed >= Settle {
		if m.status.Unconfirmed != "" {
			m.log.Info("system clock confirmed", "clock", r.Wall, "expected", m.base.at(r.Elapsed))
		}
		m.base, m.slack, m.steady = point{r.Wall, r.Elapsed}, 0, point{r.Wall, r.Elapsed}
		m.fresh = false
	}
	if m.fresh && r.Wall.Before(m.base.at(r.Elapsed)) {
		m.base = point{r.Wall, r.Elapsed}
	}
	expected := m.base.at(r.Elapsed)
	drift := r.Wall.Sub(expected)
	if m.fits(drift) {
		m.best = point{r.Wall, r.Elapsed}
	}
	m.status.Unconfirmed = m.unconfirmed(r, drift)
	best := m.best.at(r.Elapsed)
	return Times{Best: best, Earliest: earlier(best, expected)}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (m *Monitor) jumped(by time.Duration, wall time.Time) {
	if by > 0 {
		m.status.Forward++
	} else {
		m.status.Backward++
	}
	m.log.Warn("system clock jumped", "by", by.Round(time.Millisecond), "clock", wall)
}

// unconfirmed says in what the clock is not taken as right.
func (m *Monitor) unconfirmed(r Reading, drift time.Duration) string {
	wait := (Settle - (r.Elapsed - m.steady.elapsed)).Round(time.Second)
	switch {
	case !m.fits(drift):
		direction := "ahead of"
		if drift < 0 {
			direction = "behind"
		}
		return fmt.Sprintf("the system clock, %s, is %v %s the expected time, which is used instead; "+
			"nothing is purged by the system clock until it has been steady for another %v",
			r.Wall.UTC().Format(time.RFC3339), drift.Abs().Round(time.Second), direction, wait)
	case drift > Tolerance && m.fresh:
		return fmt.Sprintf("the system clock has gone forward by %v since the store was created; nothing is purged by it until it has been steady for another %v",
			drift.Round(time.Second), wait)
	case drift > Tolerance:
		return fmt.Sprintf("the store was last open %v ago by the system clock; nothing is purged by it until it has been steady for another %v",
			drift.Round(time.Second), wait)
	}
	return ""
}
