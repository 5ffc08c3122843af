package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	codes "modernc.org/sqlite/lib"
)

const (
	// openWaits is how long Open waits for the check of a store: a small one is
	// known to be sound when it is first served.
	openWaits = time.Second
	// readyWaits is how long a check may keep a store from being reported ready. A
	// check of a large store goes on behind that.
	readyWaits = time.Minute
	// checkAgain is the pause before a check that could not be carried out is repeated.
	checkAgain = 10 * time.Second
	// fullCheckBytes is the size up to which the first check is a full one, which takes
	// about four times as long.
	fullCheckBytes = 32 << 20
	// maxDamageLines bounds the findings of a check in the log.
	maxDamageLines = 5
)

// integrity checks the structure of the database: once when it is opened, and again
// when a statement meets damage. The first check of a large store is SQLite's quick_check;
// every other is its integrity_check, which compares indexes with tables too.
type integrity struct {
	disk     disk
	log      *slog.Logger
	onDamage func(error)

	cancel  context.CancelFunc
	suspect chan struct{}
	first   chan struct{} // closed when the first check has ended
	ended   chan struct{}

	mu     sync.Mutex
	began  time.Time // the check under way; zero: there is none
	damage error
}

const fullCheck = "PRAGMA integrity_check"

var errChecking = errors.New("integrity check in progress")

// startIntegrity begins the first check. onDamage is called when damage is found.
func startIntegrity(disk disk, log *slog.Logger, onDamage func(error)) *integrity {
	ctx, cancel := context.WithCancel(context.Background())
	c := &integrity{
		disk: disk, log: log, onDamage: onDamage, cancel: cancel, began: time.Now(),
		suspect: make(chan struct{}, 1), first: make(chan struct{}), ended: make(chan struct{}),
	}
	go c.run(ctx)
	return c
}

// status returns why the store must not be reported ready, nil if it may be.
func (c *integrity) status() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.damage != nil {
		return c.damage
	}
	if !c.began.IsZero() && time.Since(c.began) < readyWaits {
		return errChecking
	}
	return nil
}

// suspected asks for a check since a statement has met damage.
func (c *integrity) suspected() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.damage != nil || !c.began.IsZero() {
		return
	}
	c.began = time.Now()
	c.suspect <- struct{}{} // there is room: none is under way
}

// found notes damage that no check of SQLite's sees.
func (c *integrity) found(damage error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.damage = damage
}

func (c *integrity) close() {
	c.cancel()
	<-c.ended
}

func (c *integrity) run(ctx context.Context) {
	defer close(c.ended)
	if info, err := os.Stat(c.disk.path); err == nil && info.Size() <= fullCheckBytes {
		c.until(ctx, fullCheck)
	} else {
		c.until(ctx, "PRAGMA quick_check")
	}
	close(c.first)
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.suspect:
			c.until(ctx, fullCheck)
		}
	}
}

// until checks again and again until there is a result.
func (c *integrity) until(ctx context.Context, query string) {
	for ctx.Err() == nil {
		began := time.Now()
		findings, err := c.check(ctx, query)
		if isDamage(err) {
			if err = c.disk.lookCloser(err); isDamage(err) {
				findings, err = append(findings, err.Error()), nil
			}
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			c.log.Debug("integrity check", "check", query, "findings", len(findings), "duration", time.Since(began))
			c.end(findings)
			return
		}
		c.log.Error("integrity check failed", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(checkAgain):
		}
	}
}

func (c *integrity) end(findings []string) {
	c.mu.Lock()
	c.began = time.Time{}
	if len(findings) > 0 {
		c.damage = fmt.Errorf("the database is damaged; restore a backup: %s", findings[0])
		c.log.Error("integrity check found damage", "findings", strings.Join(findings, "\n"))
	}
	damage := c.damage
	c.mu.Unlock()
	if damage != nil {
		c.onDamage(damage)
	}
}

func (c *integrity) check(ctx context.Context, query string) (findings []string, err error) {
	conn, err := connect(ctx, readOnlyDSN(c.disk.path))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.close()) }()
	err = conn.rowsUntil(ctx, fmt.Sprintf("%s(%d)", query, maxDamageLines), func(row []driver.Value) error {
		for line := range strings.Lines(asText(row[0])) {
			if line = strings.TrimSpace(line); line != "ok" && !strings.HasPrefix(line, "***") {
				findings = append(findings, line)
			}
		}
		return nil
	})
	if code(err) == codes.SQLITE_INTERRUPT {
		err = context.Cause(ctx)
	}
	return findings, err
}
