package budget

// Level is the degree of memory pressure.
type Level int32

// The levels, with the reservations that they reject. Below Critical, callers that hold at most an equal
// share are exempt.
const (
	Normal   Level = iota // everything is admitted
	Elevated              // no new streams, no large requests
	High                  // no new requests
	Critical              // no new connections; holders that make no progress are disconnected
)

// Levels returns all levels.
func Levels() []Level { return []Level{Normal, Elevated, High, Critical} }

// String returns the name of the level.
func (l Level) String() string {
	return [...]string{"normal", "elevated", "high", "critical"}[l]
}

const (
	// hysteresis is the distance, in percent of the capacity, between the threshold of a level and
	// the reservation at which the level is left.
	hysteresis = 5
	// largeBytes is the maximum reservation of a request at Elevated and High.
	largeBytes = 256 << 10
)

// threshold returns the percentage of the capacity at which the level begins.
func (l Level) threshold() int64 { return [...]int64{0, 70, 85, 95}[l] }

// levelOf returns the level for the number of reserved bytes, after the level before.
func (b *Budget) levelOf(reserved int64, before Level) Level {
	level := Normal
	for _, l := range []Level{Elevated, High, Critical} {
		begins := l.threshold()
		if before >= l {
			begins -= hysteresis
		}
		if reserved > b.capacity/100*begins {
			level = l
		}
	}
	return level
}

// update sets the level from the reserved bytes and the memory in use.
func (b *Budget) update() {
	before := b.Level()
	if b.nextLevel(before) == before {
		return
	}
	b.mu.Lock()
	before = b.Level()
	level := b.nextLevel(before)
	b.level.Store(int32(level))
	b.mu.Unlock()
	if level != before && b.opts.Changed != nil {
		b.opts.Changed(before, level)
	}
}

// nextLevel returns the level that follows the level before.
func (b *Budget) nextLevel(before Level) Level {
	return max(b.levelOf(b.total.Load(), before), Level(b.observed.Load()))
}

// Level returns the current level.
func (b *Budget) Level() Level {
	if b == nil {
		return Normal
	}
	return Level(b.level.Load())
}

// equalShare is the share of a caller if all hold the same and the level is Normal. It is
// admitted below Critical, so that many callers together cannot lock another one out.
func (b *Budget) equalShare() int64 {
	return b.capacity / 100 * Elevated.threshold() / max(b.callers.Load(), 1)
}

// closed reports whether the level rejects a reservation of n more bytes of the kind
// by a holder of held bytes.
func (b *Budget) closed(a *account, kind Kind, held, n int64) bool {
	level := b.Level()
	switch {
	case level == Normal, level < Critical && a.held.Load()+n <= b.equalShare():
		return false
	case kind.grows():
		return level >= Critical || held+n > largeBytes
	case kind == Stream:
		return true
	case kind == Request:
		return level >= High
	case kind == Connection:
		return level >= Critical
	}
	return false
}
