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

// TruncatedMark ends a value of a log row's details that was cut to fit MaxDetails.
const TruncatedMark = "…[cut]"

// Keys of details that the service sets itself.
const (
	DetailActor     = "actor"
	DetailRequestID = "request_id"
	detailLeftOut   = "left_out"
)

// details gathers what a log row says, and bounds it.
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

// text notes a changed field; an empty side is left out.
func (d details) text(field, before, after string) {
	if before == after {
		return
	}
	if before != "" {
		d["old."+field] = before
	}
	if after != "" {
		d["new."+field] = after
	}
}

func (d details) status(before, after Status) {
	if before == after {
		return
	}
	if before != StatusNone {
		d["old.status"] = before.String()
	}
	d["new.status"] = after.String()
}

func (d details) time(field string, before, after time.Time) {
	d.text(field, formatTime(before), formatTime(after))
}

func (d details) tags(before, after []string) {
	if !slices.Equal(before, after) {
		d.text("tags", formatTags(before), formatTags(after))
	}
}

func (d details) metadata(before, after map[string]string) {
	for key, value := range before {
		if now, ok := after[key]; !ok || now != value {
			d["old.metadata."+key] = value
			if ok {
				d["new.metadata."+key] = now
			}
		}
	}
	for key, value := range after {
		if _, ok := before[key]; !ok {
			d["new.metadata."+key] = value
		}
	}
}

// bounded returns the details within MaxDetails: first the longest values are cut,
// all to the same length; if the keys alone are too many, the last ones in order
// are left out and left_out says how many.
func (d details) bounded() map[string]string {
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
			d[key] = cut(value, limit)
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

// dropSurplusKeys leaves keys out, the last first, until each remaining value has
// room for a mark.
func (d details) dropSurplusKeys() {
	room := func(key string) int { return len(key) + min(len(d[key]), len(TruncatedMark)) }
	need := len(detailLeftOut) + 4
	for key := range d {
		need += room(key)
	}
	if need-len(detailLeftOut)-4 <= MaxDetails {
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
		need -= room(key)
		delete(d, key)
		left++
	}
	d[detailLeftOut] = strconv.Itoa(left)
}

// levelLength returns the greatest length to which all values may be cut so that
// together they keep within the budget.
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

// cut shortens value to at most limit bytes, the mark included, between characters.
func cut(value string, limit int) string {
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

func formatTags(tags []string) string {
	if len(tags) == 0 {
		return ""
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(tags); err != nil {
		return strings.Join(tags, ",") // cannot happen: strings always encode
	}
	return strings.TrimSuffix(b.String(), "\n")
}
