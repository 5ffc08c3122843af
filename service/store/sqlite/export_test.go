package sqlite

// InParts returns options with which a turn of a caller has so many units of work, and a
// transaction too.
func (o Options) InParts(units int) Options {
	o.turnUnits, o.maxGroup = units, units
	return o
}
