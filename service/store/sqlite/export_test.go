package sqlite

// WithSplitBatches returns options that limit a turn of a caller, and a transaction, to units of work.
func (o Options) WithSplitBatches(units int) Options {
	o.turnUnits, o.maxGroup = units, units
	return o
}
