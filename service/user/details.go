package user

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// TruncatedMark ends a value in the details of a log row that was truncated to fit MaxDetails.
const TruncatedMark = "…[cut]"

// Detail keys set by the service.
const (
	DetailActor     = "actor"
	DetailRequestID = "request_id"
	detailOmitted   = "left_out"
)

// details builds the details of a log row.
type details map[string]string

func newDetails(by Author) details {
	d := make(details, 8)
	if by.Actor != "" {
		d[DetailActor] = by.Actor
	}
	if by.RequestID != "" {
		d[DetailRequestID] = by.RequestID
	}
	return d
}

// changes records the fields of a set that differ.
func (d details) changes(before, after *User, set FieldSet) {
	for i := range fields {
		f := &fields[i]
		switch {
		case !set.Has(f) || f.equal(before, after):
		case f.Map != nil:
			d.entries(f, *f.Map(before), *f.Map(after))
		default:
			d.text(f.oldKey, f.detail(before))
			d.text(f.newKey, f.detail(after))
		}
	}
}

// text records a value that is not empty.
func (d details) text(key, value string) {
	if value != "" {
		d[key] = value
	}
}

// entries records the entries of a map that differ. Empty values are recorded.
func (d details) entries(f *Field, before, after map[string]string) {
	for key, value := range before {
		if now, ok := after[key]; !ok || now != value {
			d[f.oldKey+"."+key] = value
			if ok {
				d[f.newKey+"."+key] = now
			}
		}
	}
	for key, value := range after {
		if _, ok := before[key]; !ok {
			d[f.newKey+"."+key] = value
		}
	}
}

// detail formats the value of a field. An unset value is empty.
func (f *Field) detail(u *User) string {
	switch {
	case f.Text != nil:
		return *f.Text(u)
	case f.Status != nil && *f.Status(u) != StatusNone:
		return f.Status(u).String()
	case f.Time != nil:
		return formatTime(*f.Time(u))
	case f.List != nil:
		return formatTags(*f.List(u))
	}
	return ""
}

// truncate bounds the details to MaxDetails: it truncates the longest values to a common
// length. If the keys alone exceed the bound it drops the last keys in order and stores
// their number in left_out.
func (d details) truncate() map[string]string {
	if d.size() <= MaxDetails {
		return d
	}
	d.dropSurplusKeys()
	budget := MaxDetails
	lengths := make([]int, 0, len(d))
	for key, value := range d {
		budget -= len(key)
		lengths = append(lengths, len(value))
	}
	limit := levelLength(lengths, budget)
	for key, value := range d {
		if len(value) > limit {
			d[key] = truncateValue(value, limit)
		}
	}
	return d
}

func (d details) size() int {
	n := 0
	for key, value := range d {
		n += len(key) + len(value)
	}
	return n
}

// dropSurplusKeys drops keys, the last first, until each remaining value has space for a mark.
func (d details) dropSurplusKeys() {
	minSize := func(key string) int { return len(key) + min(len(d[key]), len(TruncatedMark)) }
	need := len(detailOmitted) + 4
	for key := range d {
		need += minSize(key)
	}
	if need-len(detailOmitted)-4 <= MaxDetails {
		return
	}
	left := 0
	for _, key := range slices.Backward(slices.Sorted(maps.Keys(d))) {
		if need <= MaxDetails {
			break
		}
		if key == DetailActor || key == DetailRequestID {
			continue
		}
		need -= minSize(key)
		delete(d, key)
		left++
	}
	d[detailOmitted] = strconv.Itoa(left)
}

// levelLength returns the greatest length such that values truncated to it fit the budget.
func levelLength(lengths []int, budget int) int {
	slices.Sort(lengths)
	for i, n := range lengths {
		rest := len(lengths) - i
		if n*rest > budget {
			return max(budget/rest, 0)
		}
		budget -= n
	}
	return budget
}

// truncateValue truncates value to limit bytes including the mark, at a character boundary.
func truncateValue(value string, limit int) string {
	end := limit - len(TruncatedMark)
	if end < 0 {
		return TruncatedMark[:0]
	}
	for end > 0 && !utf8.RuneStart(value[end]) {
		end--
	}
	return value[:end] + TruncatedMark
}

func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// formatTags returns tags as a JSON array, without tags an empty string.
func formatTags(tags []string) string {
	if len(tags) == 0 {
		return ""
	}
	if !slices.ContainsFunc(tags, needsEscape) {
		return `["` + strings.Join(tags, `","`) + `"]`
	}
	return encodeTags(tags)
}

// needsEscape reports whether JSON may encode a string otherwise than between quotes.
func needsEscape(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= utf8.RuneSelf || r == '"' || r == '\\' })
}

func encodeTags(tags []string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(tags); err != nil {
		return strings.Join(tags, ",") // unreachable: strings always encode
	}
	return strings.TrimSuffix(b.String(), "\n")
}
