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

// text records a changed field, without empty values.
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

func formatTags(tags []string) string {
	if len(tags) == 0 {
		return ""
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(tags); err != nil {
		return strings.Join(tags, ",") // unreachable: strings always encode
	}
	return strings.TrimSuffix(b.String(), "\n")
}
