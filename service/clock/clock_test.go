package clock_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/clock"
)

// machine has a system clock with an offset from the true time.
type machine struct {
	now  time.Time // true
	off  time.Duration
	up   time.Time // true boot time
	boot string
}

func newMachine() *machine {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return &machine{now: now, up: now.Add(-time.Hour), boot: "first"}
}

func (m *machine) read() clock.Reading {
	return clock.Reading{Wall: m.now.Add(m.off), Elapsed: m.now.Sub(m.up), Boot: m.boot}
}

// pass advances the time and reads the monitor every few seconds, as a server does.
func (m *machine) pass(mon *clock.Monitor, d time.Duration) {
	const step = 5 * time.Second
	for ; d > step; d -= step {
		m.now = m.now.Add(step)
		mon.Now()
	}
	m.now = m.now.Add(d)
}

func (m *machine) reboot(boot string, down time.Duration) {
	m.now = m.now.Add(down)
	m.up, m.boot = m.now, boot
}

func (m *machine) monitor(kept clock.Checkpoint) *clock.Monitor {
	return clock.New(m.read, kept, false, slog.New(slog.DiscardHandler))
}

const year = 365 * 24 * time.Hour

// A clock that is wrong for seconds, at a start or later, is reported and changes neither
// time. A clock that is steady for an hour is trusted.
func TestJumps(t *testing.T) {
	for name, off := range map[string]time.Duration{
		"64 years ahead": 64 * year, "two hours ahead": 2 * time.Hour, "64 years back": -64 * year, "two hours back": -2 * time.Hour,
		"two minutes ahead": 2 * time.Minute,
	} {
		for _, start := range []string{"running", "restarted"} {
			t.Run(name+", "+start, func(t *testing.T) {
				m := newMachine()
				mon := m.monitor(clock.Checkpoint{})
				m.pass(mon, clock.Settle+10*time.Second)
				kept := mon.Checkpoint()
				m.off = off
				if start == "restarted" {
					m.now = m.now.Add(20 * time.Minute)
					mon = m.monitor(kept)
				}
				wantTimes(t, m, mon, m.now, m.now)
				wantUnconfirmed(t, mon, true)
				m.pass(mon, 3*time.Second)
				m.off = 0
				wantTimes(t, m, mon, m.now, m.now)
				wantUnconfirmed(t, mon, false)

				m.off = off
				m.pass(mon, clock.Settle-time.Second)
				wantTimes(t, m, mon, m.now, m.now)
				m.pass(mon, 7*time.Second)
				wantTimes(t, m, mon, m.now.Add(off), m.now.Add(off))
				wantUnconfirmed(t, mon, false)
				s := mon.Status()
				if s.Forward+s.Backward != 3 || s.Forward == 0 || s.Backward == 0 {
					t.Errorf("Status() = %+v, want 3 jumps in both directions", s)
				}
			})
		}
	}
}

func wantTimes(t *testing.T, m *machine, mon *clock.Monitor, best, earliest time.Time) {
	t.Helper()
	if got := mon.Now(); !got.Best.Equal(best) || !got.Earliest.Equal(earliest) {
		t.Fatalf("Now() = %v, %v, want %v, %v; system clock %v", got.Best, got.Earliest, best, earliest, m.read().Wall)
	}
}

func wantUnconfirmed(t *testing.T, mon *clock.Monitor, want bool) {
	t.Helper()
	if got := mon.Status().Unconfirmed; (got != "") != want {
		t.Fatalf("Status().Unconfirmed = %q, want a reason: %v", got, want)
	}
}

// After a reboot only the system clock measures the downtime. Best follows it at once,
// Earliest when it has been steady.
func TestReboot(t *testing.T) {
	m := newMachine()
	mon := m.monitor(clock.Checkpoint{})
	m.pass(mon, clock.Settle+10*time.Second)
	kept, closed := mon.Checkpoint(), m.now
	m.reboot("second", 100*24*time.Hour)
	mon = m.monitor(kept)
	up := m.now
	wantTimes(t, m, mon, m.now, closed)
	wantUnconfirmed(t, mon, true)
	m.pass(mon, 10*time.Second)
	wantTimes(t, m, mon, m.now, closed.Add(m.now.Sub(up)))

	// A restart of the process does not confirm the clock.
	m.pass(mon, 30*time.Minute)
	kept = mon.Checkpoint()
	mon = m.monitor(kept)
	wantTimes(t, m, mon, m.now, closed.Add(m.now.Sub(up)))
	wantUnconfirmed(t, mon, true)
	m.pass(mon, clock.Settle+10*time.Second)
	wantTimes(t, m, mon, m.now, m.now)
	wantUnconfirmed(t, mon, false)

	// A clock beyond plausibleDowntime, or before the last close, is ignored.
	for _, off := range []time.Duration{64 * year, -2 * time.Hour} {
		kept, closed = mon.Checkpoint(), m.now
		m.reboot("third", time.Minute)
		m.off = off
		mon = m.monitor(kept)
		wantTimes(t, m, mon, closed, closed)
		m.off = 0
		wantTimes(t, m, mon, m.now, closed.Add(m.now.Sub(m.up)))
		m.pass(mon, clock.Settle+10*time.Second)
		wantTimes(t, m, mon, m.now, m.now)
	}
}

// A store created while the clock is wrong follows the correction. Earliest is not corrected until
// the clock has been steady.
func TestFresh(t *testing.T) {
	for name, off := range map[string]time.Duration{"behind": -56 * year, "ahead": 64 * year} {
		t.Run(name, func(t *testing.T) {
			m := newMachine()
			m.off = off
			mon := m.monitor(clock.Checkpoint{})
			wantTimes(t, m, mon, m.now.Add(off), m.now.Add(off))
			m.pass(mon, 30*time.Second)
			m.off = 0
			earliest := m.now
			if off < 0 {
				earliest = m.now.Add(off)
			}
			wantTimes(t, m, mon, m.now, earliest)
			wantUnconfirmed(t, mon, off < 0)
			m.pass(mon, clock.Settle+10*time.Second)
			wantTimes(t, m, mon, m.now, m.now)
			m.off = off // the time is confirmed now
			wantTimes(t, m, mon, m.now, m.now)
		})
	}
	m := newMachine()
	mon := m.monitor(clock.Checkpoint{})
	m.pass(mon, time.Minute)
	kept := mon.Checkpoint()
	m.off = 2 * time.Hour
	wantTimes(t, m, m.monitor(kept), m.now, m.now) // the elapsed time continues across a restart
}

func TestTrusted(t *testing.T) {
	m := newMachine()
	kept := m.monitor(clock.Checkpoint{}).Checkpoint()
	m.off = 3 * year
	mon := clock.New(m.read, kept, true, slog.New(slog.DiscardHandler))
	wantTimes(t, m, mon, m.now.Add(m.off), m.now.Add(m.off))
	wantUnconfirmed(t, mon, false)
}

func TestJumpIsLogged(t *testing.T) {
	var log bytes.Buffer
	m := newMachine()
	mon := clock.New(m.read, clock.Checkpoint{}, false, slog.New(slog.NewTextHandler(&log, nil)))
	m.pass(mon, clock.Settle+10*time.Second)
	m.off = 2 * time.Hour
	for range 3 {
		mon.Now()
	}
	if got := strings.Count(log.String(), "system clock jumped"); got != 1 || !strings.Contains(log.String(), "by=2h0m0s") {
		t.Errorf("jump logged %d times, want once:\n%s", got, &log)
	}
}

// The system clocks agree with each other, also in a synctest bubble.
func TestSystem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		read := clock.System()
		before := read()
		time.Sleep(48 * time.Hour)
		after := read()
		if wall, elapsed := after.Wall.Sub(before.Wall), after.Elapsed-before.Elapsed; wall != 48*time.Hour || (elapsed-wall).Abs() > time.Second {
			t.Errorf("after 48h: wall clock advanced %v, elapsed time %v", wall, elapsed)
		}
		if before.Boot != after.Boot {
			t.Errorf("Boot = %q, then %q, want the same", before.Boot, after.Boot)
		}
	})
}

// The clock jumps at random, but no wrong time lasts an hour. Earliest is never ahead of the
// true time. Best is correct except after a reboot. After an hour of a correct clock both are
// correct.
func TestRandomClocks(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := newMachine()
		mon := m.monitor(clock.Checkpoint{})
		m.pass(mon, clock.Settle+10*time.Second)
		rebooted := false
		check := func() {
			now := mon.Now()
			// Each hour the base may drift by Tolerance.
			if now.Earliest.After(m.now.Add(clock.Tolerance)) {
				r.Fatalf("Earliest is %v ahead of the true time", now.Earliest.Sub(m.now))
			}
			if off := now.Best.Sub(m.now).Abs(); !rebooted && off > clock.Tolerance {
				r.Fatalf("Best is off by %v", off)
			}
		}
		for range rapid.IntRange(1, 12).Draw(r, "episodes") {
			switch rapid.SampledFrom([]string{"wrong", "wrong", "restart", "reboot", "settle"}).Draw(r, "episode") {
			case "wrong":
				for range rapid.IntRange(1, 3).Draw(r, "steps") {
					size := rapid.Int64Range(int64(3*time.Minute), int64(70*year)).Draw(r, "size")
					m.off = time.Duration(size * rapid.SampledFrom([]int64{-1, 1}).Draw(r, "sign"))
					check()
					m.pass(mon, time.Duration(rapid.Int64Range(0, int64(15*time.Minute)).Draw(r, "wrong for")))
					check()
				}
				m.off = 0
				check()
			case "restart":
				kept := mon.Checkpoint()
				m.now = m.now.Add(time.Duration(rapid.Int64Range(0, int64(90*24*time.Hour)).Draw(r, "down")))
				mon = m.monitor(kept)
			case "reboot":
				kept := mon.Checkpoint()
				m.reboot(m.boot+"+", time.Duration(rapid.Int64Range(0, int64(90*24*time.Hour)).Draw(r, "down")))
				mon, rebooted = m.monitor(kept), true
			case "settle":
				m.pass(mon, clock.Settle+10*time.Second)
				rebooted = false
				if now := mon.Now(); !now.Earliest.Equal(m.now) || !now.Best.Equal(m.now) {
					r.Fatalf("Now() = %+v after an hour of a correct clock, want %v", now, m.now)
				}
			}
			check()
			m.pass(mon, time.Duration(rapid.Int64Range(0, int64(20*time.Minute)).Draw(r, "right for")))
			check()
		}
	})
}
