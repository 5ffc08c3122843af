package postgres

// Points at which tests inject faults.
const (
	beforeDecide = "before-decide" // the group was read
	afterCommit  = "after-commit"  // the transaction is committed, its response was lost
)

// injected returns the error that a test injects at a point.
func (s *Store) injected(point string) error {
	if s.opts.inject == nil {
		return nil
	}
	return s.opts.inject(point)
}
