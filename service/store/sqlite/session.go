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
	"github.com/yourorg/userservice/service/user"
)

// adopt gives the copy that a backup left an epoch of its own. A copy has no
// write-ahead log, and gets none here: a log beside a file that is still marked as a copy is
// therefore not its own (see checkPair).
func (s *Store) adopt(ctx context.Context) (err error) {
	main, _, err := readMain(ctx, s.opts.Path)
	if err != nil || !main.copied {
		return nil
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
	epoch, err := s.newEpoch()
	if err != nil {
		return err
	}
	return c.run("UPDATE meta SET epoch = ?, copied = 0", epoch)
}

func (s *Store) newEpoch() (string, error) {
	var b [10]byte
	if _, err := io.ReadFull(s.opts.Random, b[:]); err != nil {
		return "", fmt.Errorf("make an epoch: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}

// readMeta returns the head of the log. A new file gets an epoch.
func (s *Store) readMeta(c *conn) (head user.Head, err error) {
	err = c.rows("SELECT epoch, position, time FROM meta", func(row []driver.Value) error {
		head.Epoch, head.Position = asText(row[0]), asNumber(row[1])
		if head.Position > 0 {
			head.Time = moment(asNumber(row[2]))
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

// beginSession notes in the database that it is open, and where. The checkpoint brings
// that into the database file before anything is acknowledged, so that the file tells
// later which log continues it. A full disk leaves the session as it was: reads are served.
func (s *Store) beginSession(w *writer) error {
	var b [8]byte
	if _, err := io.ReadFull(s.opts.Random, b[:]); err != nil {
		return fmt.Errorf("make a session: %w", err)
	}
	session := int64(binary.LittleEndian.Uint64(b[:]) >> 1)
	err := w.conn.run("UPDATE meta SET previous = session, session = ?, commits = commits + 1, place = ?", session, placeOf(s.opts.Path))
	if err == nil {
		err = s.keepMark(w)
	}
	if code(err)&0xff == codes.SQLITE_FULL {
		s.opts.Logger.Warn("session not recorded in the store", "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	return w.conn.rows("PRAGMA wal_checkpoint(PASSIVE)", func([]driver.Value) error { return nil })
}

// endSession notes that the database was closed in good order, and closes the writer's
// connection. The last connection copies the write-ahead log into the database and
// removes it. If the note cannot be written the connection, and with it the log, is left to
// the end of the process.
func (s *Store) endSession(w *writer) error {
	err := s.keepMark(w)
	if err == nil {
		err = w.conn.run("UPDATE meta SET commits = commits + 1, place = ''")
	}
	if err != nil {
		s.opts.Logger.Warn("store left open: its close could not be recorded", "error", err)
		return nil
	}
	return w.conn.close()
}

// readMark returns what the store kept of the time. An earlier release kept none: the
// log's last row is as old as the store at least.
func readMark(c *conn, head user.Head) (kept clock.Checkpoint, err error) {
	err = c.rows("SELECT clock_time, clock_elapsed, clock_boot FROM meta", func(row []driver.Value) error {
		if at := asNumber(row[0]); at != 0 {
			kept = clock.Checkpoint{Time: moment(at), Elapsed: time.Duration(asNumber(row[1])), Boot: asText(row[2])}
		}
		return nil
	})
	if err == nil && kept.Time.IsZero() {
		kept.Time = head.Time
	}
	return kept, err
}

// keepMark notes the time for the next start. The prober has it done every few seconds.
func (s *Store) keepMark(w *writer) error {
	mark := s.clock.Checkpoint()
	return w.conn.run("UPDATE meta SET clock_time = ?, clock_elapsed = ?, clock_boot = ?", mark.Time.UnixMicro(), int64(mark.Elapsed), mark.Boot)
}
