package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// importState is how far an import is. It is saved before the first row is sent and after a number of rows. An interrupted
// import continues with the rows behind them, which have the same request ids again.
type importState struct {
	ID      uuid.UUID     `json:"id"`    // from which request ids are derived
	Input   string        `json:"input"` // hash of the content and the options
	Rows    int           `json:"rows"`  // rows that are complete
	Summary importSummary `json:"summary"`

	path string // "": not saved
}

// importSummary counts rows by outcome.
type importSummary struct {
	Created   int `json:"created"`
	Updated   int `json:"updated"`
	Unchanged int `json:"unchanged"`
	Valid     int `json:"valid"`
	Refused   int `json:"refused"`
}

// count adds a row that was sent.
func (s *importSummary) count(outcome userv1.ItemOutcome) {
	switch outcome {
	case userv1.ItemOutcome_ITEM_OUTCOME_CREATED:
		s.Created++
	case userv1.ItemOutcome_ITEM_OUTCOME_UPDATED:
		s.Updated++
	case userv1.ItemOutcome_ITEM_OUTCOME_UNCHANGED:
		s.Unchanged++
	case userv1.ItemOutcome_ITEM_OUTCOME_VALID:
		s.Valid++
	case userv1.ItemOutcome_ITEM_OUTCOME_UNSPECIFIED, userv1.ItemOutcome_ITEM_OUTCOME_FAILED: // refused
	}
}

// openState returns the saved state of an import, or a new one.
func openState(path, input string) (*importState, error) {
	state := &importState{ID: uuid.New(), Input: input, path: path}
	if path == "" {
		return state, nil
	}
	text, err := os.ReadFile(path) //nolint:gosec // the user chooses the file
	if errors.Is(err, fs.ErrNotExist) {
		err = state.save()
		return state, err
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, state); err != nil {
		return nil, fmt.Errorf("state file %s: %w", path, err)
	}
	if state.Input != input {
		return nil, newUsageError("state file %s: belongs to another import; remove it to start from the first row", path)
	}
	return state, nil
}

// save replaces the file, durably.
func (s *importState) save() error {
	if s.path == "" {
		return nil
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(s.path, append(text, '\n'))
}

// remove deletes the file of a complete import.
func (s *importState) remove() error {
	if s.path == "" {
		return nil
	}
	return os.Remove(s.path)
}

// requestID returns the request id of a write of a row: the last bytes of the id of the import are replaced by their
// numbers. Servers store request ids in their order, and append those of an import.
func (s *importState) requestID(row int, write rowWrite) string {
	id := s.ID
	binary.BigEndian.PutUint64(id[8:], uint64(row))
	id[8] = s.ID[8]
	id[9] = byte(write)
	return id.String()
}

// rowWrite is a write of a row.
type rowWrite byte

const (
	writeCreate rowWrite = iota
	writeStatus
)

// writeFile replaces a file atomically and durably.
func writeFile(path string, text []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		_ = os.Remove(file.Name())
	}
	return err
}
