package user

import (
	"strconv"
	"strings"
)

const (
	// PositionHeader is the response header with a position of the log that the response reflects at least.
	PositionHeader = "Userd-Position"
	// MinPositionHeader is the request header with a position that the response must reflect.
	MinPositionHeader = "Userd-Min-Position"
)

// FormatPosition returns a position of the log as EPOCH:POSITION.
func FormatPosition(epoch string, position int64) string {
	return epoch + ":" + strconv.FormatInt(position, 10)
}

// ParsePosition parses EPOCH:POSITION.
func ParsePosition(text string) (epoch string, position int64, ok bool) {
	i := strings.LastIndexByte(text, ':')
	if i <= 0 {
		return "", 0, false
	}
	position, err := strconv.ParseInt(text[i+1:], 10, 64)
	if err != nil || position < 0 {
		return "", 0, false
	}
	return text[:i], position, true
}
