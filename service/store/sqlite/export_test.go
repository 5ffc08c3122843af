package sqlite

import "github.com/yourorg/userservice/service/store/group"

// WithSplitBatches returns options that limit a turn of a caller, and a transaction, to units of work.
func (o Options) WithSplitBatches(units int) Options {
	o.group = group.Options{TurnUnits: units, MaxUnits: units}
	return o
}
