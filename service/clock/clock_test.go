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

// machine is a machine whose system clock is off the true time.
type machine struct {
	now  time.Time // true
	off  time.Duration
	up   time.Time // true time of its start
	boot string
}

func newMachine() *machine {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return &machine{now: now, up: now.Add(-time.Hour), boot: "first"}
}

func (m *machine) read() clock.Reading {
	return clock.Reading{Wall: m.now.Add(m.off), Elapsed: m.now.Sub(m.up), Boot: m.boot}
}

// pass lets time pass, and looks at the guard every few seconds as a server does.
func (m *machine) pass(g *clock.Monitor, d time.Duration) {
	const step = 5 * time.Second
	for ; d > step; d -= step {
		m.now = m.now.Add(step)
		g.Now()
	}
	m.now = m.now.Add(d)
}

func (m *machine) reboot(boot string, down time.Duration) {
	m.now = m.now.Add(down)
	m.up, m.boot = m.now, boot
}

func (m *machine) guard(kept clock.Checkpoint) *clock.Monitor {
	return clock.New(m.read, kept, false, slog.New(slog.DiscardHandler))
}

const year = 365 * 24 * time.Hour

// A clock that is wrong for some seconds at a start or while the process runs changes
// neither time, and is told of. One that stays is taken as right after an hour.
func TestJumps(t *testing.T) {
	for name, off := range map[string]time.Duration{
		"64 years ahead": 64 * year, "two hours ahead": 2 * time.Hour, "64 years back": -64 * year, "two hours back": -2 * time.Hour,
		"two minutes ahead": 2 * time.Minute,
	} {
		for _, start := range []string{"running", "restarted"} {
			t.Run(name+", "+start, func(t *testing.T) {
				m := newMachine()
				g := m.guard(clock.Checkpoint{})
				m.pass(g, clock.Settle+10*time.Second)
				kept := g.Checkpoint()
				m.off = off
				if start == "restarted" {
					m.now = m.now.Add(20 * time.Minute)
					g = m.guard(kept)
				}
				mustKnow(t, m, g, m.now, m.now)
				mustBeUnconfirmed(t, g, true)
				m.pass(g, 3*time.Second)
				m.off = 0
				mustKnow(t, m, g, m.now, m.now)
				mustBeUnconfirmed(t, g, false)

				m.off = off
				m.pass(g, clock.Settle-time.Second)
				mustKnow(t, m, g, m.now, m.now)
				m.pass(g, 7*time.Second)
				mustKnow(t, m, g, m.now.Add(off), m.now.Add(off))
				mustBeUnconfirmed(t, g, false)
				s := g.Status()
				if s.Forward+s.Backward != 3 || s.Forward == 0 || s.Backward == 0 {
					t.Errorf("Status() = %+v, want 3 jumps in both directions", s)
				}
			})
		}
	}
}

func mustKnow(t *testing.T, m *machine, g *clock.Monitor, best, due time.Time) {
	t.Helper()
	if got := g.Now(); !got.Best.Equal(best) || !got.Earliest.Equal(due) {
		t.Fatalf("Now() = %v, %v, want %v, %v; the clock says %v", got.Best, got.Earliest, best, due, m.read().Wall)
	}
}

func mustBeUnconfirmed(t *testing.T, g *clock.Monitor, want bool) {
	t.Helper()
	if got := g.Status().Unconfirmed; (got != "") != want {
		t.Fatalf("Status().Unconfirmed = %q, want some text: %v", got, want)
	}
}

// After the machine has started anew only its clock tells how long that took. It is
// believed for what can be corrected, and for the rest once it has been steady.
func TestReboot(t *testing.T) {
	m := newMachine()
	g := m.guard(clock.Checkpoint{})
	m.pass(g, clock.Settle+10*time.Second)
	kept, closed := g.Checkpoint(), m.now
	m.reboot("second", 100*24*time.Hour)
	g = m.guard(kept)
	up := m.now
	mustKnow(t, m, g, m.now, closed)
	mustBeUnconfirmed(t, g, true)
	m.pass(g, 10*time.Second)
	mustKnow(t, m, g, m.now, closed.Add(m.now.Sub(up)))

	// A restart of the process meanwhile is no confirmation.
	m.pass(g, 30*time.Minute)
	kept = g.Checkpoint()
	g = m.guard(kept)
	mustKnow(t, m, g, m.now, closed.Add(m.now.Sub(up)))
	mustBeUnconfirmed(t, g, true)
	m.pass(g, clock.Settle+10*time.Second)
	mustKnow(t, m, g, m.now, m.now)
	mustBeUnconfirmed(t, g, false)

	// A clock beyond every downtime, or before the last close, is not believed at all.
	for _, off := range []time.Duration{64 * year, -2 * time.Hour} {
		kept, closed = g.Checkpoint(), m.now
		m.reboot("third", time.Minute)
		m.off = off
		g = m.guard(kept)
		mustKnow(t, m, g, closed, closed)
		m.off = 0
		mustKnow(t, m, g, m.now, closed.Add(m.now.Sub(m.up)))
		m.pass(g, clock.Settle+10*time.Second)
		mustKnow(t, m, g, m.now, m.now)
	}
}

// A store that is created while the clock is wrong follows it to the right time. What
// was to be purged by the wrong one waits until the clock has been steady.
func TestFresh(t *testing.T) {
	for name, off := range map[string]time.Duration{"behind": -56 * year, "ahead": 64 * year} {
		t.Run(name, func(t *testing.T) {
			m := newMachine()
			m.off = off
			g := m.guard(clock.Checkpoint{})
			mustKnow(t, m, g, m.now.Add(off), m.now.Add(off))
			m.pass(g, 30*time.Second)
			m.off = 0
			due := m.now
			if off < 0 {
				due = m.now.Add(off)
			}
			mustKnow(t, m, g, m.now, due)
			mustBeUnconfirmed(t, g, off < 0)
			m.pass(g, clock.Settle+10*time.Second)
			mustKnow(t, m, g, m.now, m.now)
			m.off = off // from now on the time is known
			mustKnow(t, m, g, m.now, m.now)
		})
	}
	m := newMachine()
	g := m.guard(clock.Checkpoint{})
	m.pass(g, time.Minute)
	kept := g.Checkpoint()
	m.off = 2 * time.Hour
	mustKnow(t, m, m.guard(kept), m.now, m.now) // the elapsed time is known over a restart
}

// An operator who knows that the clock is right can say so.
func TestTrusted(t *testing.T) {
	m := newMachine()
	kept := m.guard(clock.Checkpoint{}).Checkpoint()
	m.off = 3 * year
	g := clock.New(m.read, kept, true, slog.New(slog.DiscardHandler))
	mustKnow(t, m, g, m.now.Add(m.off), m.now.Add(m.off))
	mustBeUnconfirmed(t, g, false)
}

func TestJumpIsLogged(t *testing.T) {
	var log bytes.Buffer
	m := newMachine()
	g := clock.New(m.read, clock.Checkpoint{}, false, slog.New(slog.NewTextHandler(&log, nil)))
	m.pass(g, clock.Settle+10*time.Second)
	m.off = 2 * time.Hour
	for range 3 {
		g.Now()
	}
	if got := strings.Count(log.String(), "system clock jumped"); got != 1 || !strings.Contains(log.String(), "by=2h0m0s") {
		t.Errorf("the log tells of a jump %d times, want once:\n%s", got, &log)
	}
}

// The system's own clocks agree with each other, and pass in a bubble of synctest too.
func TestSystem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		read := clock.System()
		before := read()
		time.Sleep(48 * time.Hour)
		after := read()
		if wall, elapsed := after.Wall.Sub(before.Wall), after.Elapsed-before.Elapsed; wall != 48*time.Hour || (elapsed-wall).Abs() > time.Second {
			t.Errorf("48 hours took %v by the clock and %v of elapsed time", wall, elapsed)
		}
		if before.Boot != after.Boot {
			t.Errorf("boot %q and %q", before.Boot, after.Boot)
		}
	})
}

// Whatever the clock does between times at which it is right, as long as no wrong time
// lasts an hour: what is due has come, and the best known time is right, except while
// a downtime is known by a wrong clock alone. Once it is right for an hour all is right.
func TestRandomClocks(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := newMachine()
		g := m.guard(clock.Checkpoint{})
		m.pass(g, clock.Settle+10*time.Second)
		rebooted := false
		check := func() {
			now := g.Now()
			// Each hour the base may follow the clock by what is tolerated.
			if now.Earliest.After(m.now.Add(clock.Tolerance)) {
				r.Fatalf("due is %v ahead of the true time", now.Earliest.Sub(m.now))
			}
			if off := now.Best.Sub(m.now).Abs(); !rebooted && off > clock.Tolerance {
				r.Fatalf("the best known time is off by %v", off)
			}
		}
		for range rapid.IntRange(1, 12).Draw(r, "episodes") {
			switch rapid.SampledFrom([]string{"wrong", "wrong", "restart", "reboot", "settle"}).Draw(r, "episode") {
			case "wrong":
				for range rapid.IntRange(1, 3).Draw(r, "steps") {
					size := rapid.Int64Range(int64(3*time.Minute), int64(70*year)).Draw(r, "size")
					m.off = time.Duration(size * rapid.SampledFrom([]int64{-1, 1}).Draw(r, "sign"))
					check()
					m.pass(g, time.Duration(rapid.Int64Range(0, int64(15*time.Minute)).Draw(r, "wrong for")))
					check()
				}
				m.off = 0
				check()
			case "restart":
				kept := g.Checkpoint()
				m.now = m.now.Add(time.Duration(rapid.Int64Range(0, int64(90*24*time.Hour)).Draw(r, "down")))
				g = m.guard(kept)
			case "reboot":
				kept := g.Checkpoint()
				m.reboot(m.boot+"+", time.Duration(rapid.Int64Range(0, int64(90*24*time.Hour)).Draw(r, "down")))
				g, rebooted = m.guard(kept), true
			case "settle":
				m.pass(g, clock.Settle+10*time.Second)
				rebooted = false
				if now := g.Now(); !now.Earliest.Equal(m.now) || !now.Best.Equal(m.now) {
					r.Fatalf("after an hour of a right clock: %+v, want %v", now, m.now)
				}
			}
			check()
			m.pass(g, time.Duration(rapid.Int64Range(0, int64(20*time.Minute)).Draw(r, "right for")))
			check()
		}
	})
}
