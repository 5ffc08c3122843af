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

	"github.com/yourorg/userservice/service/store/encoding"
)

const (
	// openCheckTimeout is how long Open waits for the first check. A small database is
	// checked within it.
	openCheckTimeout = time.Second
	// readyCheckTimeout is how long a check in progress keeps the store from being ready.
	readyCheckTimeout = time.Minute
	// checkRetryInterval is the pause before a check that failed is repeated.
	checkRetryInterval = 10 * time.Second
	// fullCheckBytes is the largest size for which the first check is an integrity_check,
	// which takes about four times as long as a quick_check.
	fullCheckBytes = 32 << 20
	// maxDamageLines limits the findings of a check.
	maxDamageLines = 5
)

// integrity checks the structure of the database in the background: when it is opened, and
// again when a statement reports corruption. The first check of a large store is a
// quick_check, all others are an integrity_check, which also compares indexes with tables.
type integrity struct {
	disk     disk
	log      *slog.Logger
	onDamage func(error)

	cancel  context.CancelFunc
	suspect chan struct{}
	first   chan struct{} // closed after the first check
	done    chan struct{} // closed when run returns

	mu     sync.Mutex
	start  time.Time // of the check in progress; zero: none
	damage error
}

const fullCheck = "PRAGMA integrity_check"

var errChecking = errors.New("integrity check in progress")

// startIntegrity starts the first check. onDamage is called when a check finds damage.
func startIntegrity(disk disk, log *slog.Logger, onDamage func(error)) *integrity {
	ctx, cancel := context.WithCancel(context.Background())
	c := &integrity{
		disk: disk, log: log, onDamage: onDamage, cancel: cancel, start: time.Now(),
		suspect: make(chan struct{}, 1), first: make(chan struct{}), done: make(chan struct{}),
	}
	go c.run(ctx)
	return c
}

// status returns the reason why the store is not ready, or nil.
func (c *integrity) status() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.damage != nil {
		return c.damage
	}
	if time.Since(c.start) < readyCheckTimeout {
		return errChecking
	}
	return nil
}

// report handles damage that a statement has found. A value that cannot be decoded is damage by itself, which
// an integrity check does not find; else report starts a check.
func (c *integrity) report(err error) {
	if !errors.Is(err, encoding.ErrEncoding) {
		c.recheck()
	} else if c.status() == nil {
		c.finish([]string{err.Error()})
	}
}

// recheck starts a check.
func (c *integrity) recheck() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.damage != nil || !c.start.IsZero() {
		return
	}
	c.start = time.Now()
	c.suspect <- struct{}{} // does not block: no check is in progress
}

// setDamage records damage that an integrity check does not find.
func (c *integrity) setDamage(damage error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.damage = damage
}

func (c *integrity) close() {
	c.cancel()
	<-c.done
}

func (c *integrity) run(ctx context.Context) {
	defer close(c.done)
	if info, err := os.Stat(c.disk.path); err == nil && info.Size() <= fullCheckBytes {
		c.checkUntilResult(ctx, fullCheck)
	} else {
		c.checkUntilResult(ctx, "PRAGMA quick_check")
	}
	close(c.first)
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.suspect:
			c.checkUntilResult(ctx, fullCheck)
		}
	}
}

// checkUntilResult repeats a check that fails until it has a result.
func (c *integrity) checkUntilResult(ctx context.Context, query string) {
	for ctx.Err() == nil {
		start := time.Now()
		findings, err := structure(ctx, c.disk.path, query)
		if isDamage(err) {
			if err = c.disk.diagnose(err); isDamage(err) {
				findings, err = append(findings, err.Error()), nil
			}
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			c.log.Debug("integrity check", "check", query, "findings", len(findings), "duration", time.Since(start))
			c.finish(findings)
			return
		}
		c.log.Error("integrity check failed", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(checkRetryInterval):
		}
	}
}

func (c *integrity) finish(findings []string) {
	c.mu.Lock()
	c.start = time.Time{}
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

// structure returns the findings of an integrity check of the database at path with its write-ahead log.
func structure(ctx context.Context, path, query string) (findings []string, err error) {
	conn, err := connect(ctx, readOnlyDSN(path))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.close()) }()
	err = conn.rowsContext(ctx, fmt.Sprintf("%s(%d)", query, maxDamageLines), func(row []driver.Value) error {
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
