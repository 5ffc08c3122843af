package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"time"

	codes "modernc.org/sqlite/lib"

	"github.com/yourorg/userservice/service/clock"
	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/user"
)

// adopt sets a new epoch in a database that is marked as a copy, and removes that of a database that was not closed
// and whose write-ahead log, or its end, is missing: its last transactions may be lost, and positions must not be reused. In a
// copy it does not use a write-ahead log, so a log beside a marked copy always belongs to another database
// (see checkWAL).
func (s *Store) adopt(ctx context.Context) (err error) {
	main, page, err := readMain(ctx, s.opts.Path)
	if err != nil {
		return nil
	}
	log, err := readWAL(s.opts.Path+"-wal", page)
	lost := log.short || log.commits == 0 && main.place == locationOf(s.opts.Path)
	if err != nil || !main.copied && !lost {
		return err
	}
	c, err := connect(ctx, address(s.opts.Path, url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(5000)", "synchronous(FULL)", "trusted_schema(OFF)",
	}}))
	if err != nil {
		return err
	}
	defer func() {
		if failure := c.close(); err == nil {
			err = failure
		}
	}()
	if lost {
		s.opts.Logger.Warn("write-ahead log of a store that was not closed is missing, or lacks its end: acknowledged writes may be lost, "+
			"and the store gets a new epoch", "path", s.opts.Path)
		// readMeta sets the new one. A log with another epoch would not continue the database.
		return c.run("UPDATE meta SET epoch = ''")
	}
	epoch, err := s.newEpoch()
	if err != nil {
		return err
	}
	return c.run("UPDATE meta SET epoch = ?, copied = 0", epoch)
}

func (s *Store) newEpoch() (string, error) {
	var b [10]byte
	if _, err := io.ReadFull(s.opts.Random, b[:]); err != nil {
		return "", fmt.Errorf("new epoch: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}

// readMeta returns the head of the log and sets first. It sets the epoch of a new database.
func (s *Store) readMeta(c *conn) (head user.Head, err error) {
	err = c.rows("SELECT epoch, position, time, first FROM meta", func(row []driver.Value) error {
		head.Epoch, head.Position = asText(row[0]), asNumber(row[1])
		s.first.Store(asNumber(row[3]))
		if head.Position > 0 {
			head.Time = encoding.FromMicros(asNumber(row[2]))
		}
		return nil
	})
	if err != nil || head.Epoch != "" {
		return head, err
	}
	if head.Epoch, err = s.newEpoch(); err != nil {
		return head, err
	}
	return head, c.run("UPDATE meta SET epoch = ?", head.Epoch)
}

// beginSession records a new session ID and the location in the meta table. The checkpoint
// writes them to the database file before any write is acknowledged, so that checkWAL can
// match the file with its log. If the disk is full the old session remains, and the store
// serves reads.
func (s *Store) beginSession(w *writer) error {
	var b [8]byte
	if _, err := io.ReadFull(s.opts.Random, b[:]); err != nil {
		return fmt.Errorf("new session id: %w", err)
	}
	session := int64(binary.LittleEndian.Uint64(b[:]) >> 1)
	err := w.conn.run("UPDATE meta SET previous = session, session = ?, commits = commits + 1, place = ?", session, locationOf(s.opts.Path))
	if err == nil {
		err = s.saveClockCheckpoint(w)
	}
	if code(err)&0xff == codes.SQLITE_FULL {
		s.opts.Logger.Warn("failed to record session in store", "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	return w.conn.rows("PRAGMA wal_checkpoint(PASSIVE)", func([]driver.Value) error { return nil })
}

// endSession records that the database was closed, and closes the writer's connection.
// Closing the last connection checkpoints and removes the write-ahead log. If the record
// cannot be written, the connection stays open until the process exits, and the log remains.
func (s *Store) endSession(w *writer) error {
	err := s.saveClockCheckpoint(w)
	if err == nil {
		err = w.conn.run("UPDATE meta SET commits = commits + 1, place = ''")
	}
	if err != nil {
		s.opts.Logger.Warn("failed to record close in store", "error", err)
		return nil
	}
	return w.conn.close()
}

// readClockCheckpoint returns the stored clock checkpoint, or the time of the last log row if an earlier
// release stored none.
func readClockCheckpoint(c *conn, head user.Head) (kept clock.Checkpoint, err error) {
	err = c.rows("SELECT clock_time, clock_elapsed, clock_boot FROM meta", func(row []driver.Value) error {
		if at := asNumber(row[0]); at != 0 {
			kept = clock.Checkpoint{Time: encoding.FromMicros(at), Elapsed: time.Duration(asNumber(row[1])), Boot: asText(row[2])}
		}
		return nil
	})
	if err == nil && kept.Time.IsZero() {
		kept.Time = head.Time
	}
	return kept, err
}

// saveClockCheckpoint stores the clock checkpoint for the next start. Each probe calls it.
func (s *Store) saveClockCheckpoint(w *writer) error {
	checkpoint := s.clock.Checkpoint()
	return w.conn.run("UPDATE meta SET clock_time = ?, clock_elapsed = ?, clock_boot = ?", checkpoint.Time.UnixMicro(), int64(checkpoint.Elapsed), checkpoint.Boot)
}
