// Package clock detects a wrong system clock, so that it causes no irreversible changes.
//
// A [Monitor] compares the system clock with the monotonic time since boot: within the
// process, across restarts on the same boot, and, approximately, with the time at which the
// store was last open. It returns the best estimate of the current time and a lower bound.
package clock

import (
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	// Tolerance is the maximum drift of the system clock from the elapsed time within Settle
	// that is not a jump. It covers the small corrections of NTP.
	Tolerance = time.Minute
	// Settle is the time for which a clock that jumped must be steady to be confirmed.
	Settle = time.Hour
	// plausibleDowntime bounds the downtime of a store if only the system clock can measure
	// it.
	plausibleDowntime = 366 * 24 * time.Hour
)

// Reading is a reading of the clocks of the machine.
type Reading struct {
	Wall    time.Time     // the system clock
	Elapsed time.Duration // monotonic time since boot
	Boot    string        // boot id; empty: unknown
}

// Source reads the clocks.
type Source func() Reading

// FromWallClock returns a source whose elapsed time is derived from now, so setting the clock
// is never a jump.
func FromWallClock(now func() time.Time) Source {
	start := time.Unix(0, 0)
	return func() Reading {
		wall := now()
		return Reading{Wall: wall, Elapsed: wall.Sub(start), Boot: "steady"}
	}
}

// Checkpoint is the state of a Monitor that a store persists for the next start.
type Checkpoint struct {
	Time    time.Time     // lower bound of the time; zero: unknown
	Elapsed time.Duration // elapsed time at Time
	Boot    string        // boot id at Time; empty: Elapsed is not comparable
}

// Times are estimates of the current time.
type Times struct {
	Best     time.Time // best estimate
	Earliest time.Time // lower bound, for irreversible decisions
}

// Status is the state reported to operators.
type Status struct {
	// Unconfirmed is the reason why the system clock is not trusted; empty: it is trusted.
	Unconfirmed string
	// Forward and Backward count jumps.
	Forward, Backward int64
}

// point is a time and the elapsed time at that time.
type point struct {
	time    time.Time
	elapsed time.Duration
}

// at extrapolates the time of the point to another elapsed time.
func (p point) at(elapsed time.Duration) time.Time { return p.time.Add(elapsed - p.elapsed) }

// Monitor checks the system clock. It is safe for concurrent use.
type Monitor struct {
	read Source
	log  *slog.Logger

	mu     sync.Mutex
	base   point         // a trusted time, or a lower bound
	slack  time.Duration // maximum by which base is too early
	fresh  bool          // no checkpoint: any jump may be the correction
	best   point         // the last reading consistent with base
	steady point         // the first reading since the last jump
	status Status
}

// New returns a monitor that continues from a checkpoint. If trusted is set it trusts the
// current system clock.
func New(read Source, last Checkpoint, trusted bool, log *slog.Logger) *Monitor {
	m := &Monitor{read: read, log: log}
	r := read()
	m.base, m.steady = point{r.Wall, r.Elapsed}, point{r.Wall, r.Elapsed}
	switch {
	case trusted:
	case last.Time.IsZero():
		m.fresh = true
	case last.Boot != "" && last.Boot == r.Boot && r.Elapsed >= last.Elapsed:
		m.base = point{last.Time, last.Elapsed}
	default:
		m.base, m.slack = point{last.Time, r.Elapsed}, plausibleDowntime
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

// Now returns the estimates of the current time.
func (m *Monitor) Now() Times {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.observe(m.read())
}

// Checkpoint returns the state to persist for the next start.
func (m *Monitor) Checkpoint() Checkpoint {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.read()
	c := Checkpoint{Time: m.observe(r).Earliest, Elapsed: r.Elapsed, Boot: r.Boot}
	switch {
	case m.fresh:
		c.Time = m.best.at(r.Elapsed)
	case m.slack > 0:
		c.Boot = "" // the downtime is not confirmed yet
	}
	return c
}

// Status returns the state for operators.
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

// unconfirmed returns the reason why the clock is not trusted, or "".
func (m *Monitor) unconfirmed(r Reading, drift time.Duration) string {
	wait := (Settle - (r.Elapsed - m.steady.elapsed)).Round(time.Second)
	switch {
	case !m.fits(drift):
		direction := "ahead of"
		if drift < 0 {
			direction = "behind"
		}
		return fmt.Sprintf("system clock %s is %v %s the expected time, which is used instead; "+
			"purging is suspended until the clock has been steady for another %v",
			r.Wall.UTC().Format(time.RFC3339), drift.Abs().Round(time.Second), direction, wait)
	case drift > Tolerance && m.fresh:
		return fmt.Sprintf("system clock jumped forward by %v since the store was created; purging is suspended until the clock has been steady for another %v",
			drift.Round(time.Second), wait)
	case drift > Tolerance:
		return fmt.Sprintf("store was last open %v ago by the system clock; purging is suspended until the clock has been steady for another %v",
			drift.Round(time.Second), wait)
	}
	return ""
}
