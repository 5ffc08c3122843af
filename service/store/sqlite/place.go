package sqlite

import (
	"errors"
	"fmt"
	"os"
)

// journalLimit is how large SQLite leaves the write-ahead log when it begins it anew.
const journalLimit = 64 << 20

// place is where a file that is open was found. A process that has a file open does not
// notice when its name is removed or given to another file: it would write, sync and
// acknowledge what the next start does not find.
type place struct {
	path  string
	limit int64 // up to which the file never shrinks
	info  os.FileInfo
}

// findPlaces notes where the files of a database are that has just been opened.
func findPlaces(path string) (places [2]place, err error) {
	places = [2]place{{path: path, limit: 1 << 62}, {path: path + "-wal", limit: journalLimit}}
	for i := range places {
		if places[i].info, err = os.Stat(places[i].path); err != nil {
			return places, err
		}
	}
	return places, nil
}

// check returns what has become of the file, nil if it is where it was, and whole.
func (p *place) check() error {
	info, err := os.Stat(p.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s was removed while it was open", p.path)
	case err != nil:
		return nil //nolint:nilerr // it cannot be looked at, which says nothing of it
	case !os.SameFile(info, p.info):
		return fmt.Errorf("%s was replaced by another file while it was open", p.path)
	case info.Size() < min(p.info.Size(), p.limit):
		return fmt.Errorf("%s was cut from %d bytes to %d while it was open", p.path, p.info.Size(), info.Size())
	}
	p.info = info
	return nil
}
