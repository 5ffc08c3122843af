package rpcstatus

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/yourorg/userservice/service/user"
)

const (
	// MaxBytes is the maximum size of message and details in the encoding of any protocol.
	// gRPC clients drop trailers above 8 KiB and report RESOURCE_EXHAUSTED.
	MaxBytes = 6<<10 - 1

	// OmittedViolations is the ErrorInfo metadata key of the number of omitted violations.
	OmittedViolations = "omitted_violations"

	maxText       = 512 // bytes of one text
	minText       = 32
	maxViolations = 64
	// smallBytes is a proto size whose JSON fits too: JSON escapes a byte as up to six.
	smallBytes = 400
)

// fromDomain converts an error within MaxBytes. It keeps the first violations that fit, and
// truncates texts further only if not even one fits.
func fromDomain(e *user.Error) *status.Status {
	for limit := maxText; ; limit /= 2 {
		for n := min(len(e.Violations), maxViolations); ; n = n * 3 / 4 {
			s := encode(e, n, limit)
			if wireBytes(s) <= MaxBytes || limit <= minText && n == 0 {
				return s
			}
			if n <= 1 && limit > minText || n == 0 {
				break
			}
		}
	}
}

// message returns the error text with those of the first n violations that fit into limit,
// and the number of the others.
func message(e *user.Error, n, limit int) string {
	var b strings.Builder
	b.WriteString(Truncate(e.Message, limit))
	shown := 0
	for _, v := range e.Violations[:n] {
		text := v.Message
		if v.Field != "" {
			text = v.Field + ": " + text
		}
		if shown > 0 && b.Len()+len(text) > limit {
			break
		}
		b.WriteString([]string{": ", "; "}[min(shown, 1)])
		b.WriteString(Truncate(text, limit))
		shown++
	}
	switch rest := len(e.Violations) - shown; {
	case rest > 0 && shown > 0:
		b.WriteString("; and " + strconv.Itoa(rest) + " more")
	case rest > 0:
		b.WriteString(": " + strconv.Itoa(rest) + " violations")
	}
	return b.String()
}

// wireBytes returns the size of the larger encoding: gRPC trailers or Connect JSON. REST JSON is
// smaller than Connect JSON.
func wireBytes(s *status.Status) int {
	size := proto.Size(s)
	if size <= smallBytes {
		return size
	}
	grpc := base64.RawStdEncoding.EncodedLen(size) + percentEncodedLen(s.GetMessage())
	connect := jsonLen(s.GetMessage())
	for _, packed := range s.GetDetails() {
		connect += base64.RawStdEncoding.EncodedLen(len(packed.GetValue())) + len(packed.GetTypeUrl()) + detailOverhead
		if text, err := protojson.Marshal(packed); err == nil {
			connect += jsonLen(json.RawMessage(text))
		}
	}
	return max(grpc, connect)
}

// detailOverhead is the size of the member names of a detail in Connect JSON.
const detailOverhead = len(`{"type":"","value":"","debug":},`)

func jsonLen(value any) int {
	text, _ := json.Marshal(value) // cannot fail for strings and valid JSON
	return len(text)
}

// percentEncodedLen returns the length of the encoded trailer grpc-message.
func percentEncodedLen(message string) int {
	size := 0
	for _, c := range []byte(message) {
		if c < ' ' || c > '~' || c == '%' {
			size += 2
		}
		size++
	}
	return size
}

// Truncate returns text as valid UTF-8 of at most limit bytes. A truncated text ends with an
// ellipsis.
func Truncate(text string, limit int) string {
	const ellipsis = "…"
	truncated := len(text) > limit
	if truncated {
		text = text[:limit]
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	if !truncated && len(text) <= limit {
		return text
	}
	end := max(min(limit, len(text))-len(ellipsis), 0)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + ellipsis
}
