package rest

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/yourorg/userservice/service/user"
)

const (
	// maxTimeoutSeconds is the maximum of X-Server-Timeout.
	maxTimeoutSeconds = 1_000_000
	// maxTags is the maximum number of tags in If-Match.
	maxTags = 16
)

// readHeader reads the headers that set fields of the message or the timeout. An unsupported
// precondition is an error, because the caller relies on it.
func (c *call) readHeader(r *http.Request) []user.Violation {
	return append(append(c.readIfMatch(r), c.readIdempotencyKey(r)...), c.readTimeout(r)...)
}

func (c *call) has(name protoreflect.Name) bool {
	return c.message.Descriptor().Fields().ByName(name) != nil
}

func (c *call) set(name protoreflect.Name, value string) {
	c.message.Set(c.message.Descriptor().Fields().ByName(name), protoreflect.ValueOfString(value))
}

func (c *call) text(name protoreflect.Name) string {
	return c.message.Get(c.message.Descriptor().Fields().ByName(name)).String()
}

// isRead reports whether the RPC has no side effects.
func (c *call) isRead() bool {
	options, _ := c.route.rpc.Options().(*descriptorpb.MethodOptions)
	return options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS || c.route.rpc.IsStreamingServer()
}

// readIfMatch reads If-Match. Weak tags are accepted, because compressing proxies weaken tags.
func (c *call) readIfMatch(r *http.Request) []user.Violation {
	if c.isRead() {
		return nil
	}
	if len(r.Header["If-None-Match"]) > 0 {
		return []user.Violation{{Field: "If-None-Match", Message: "not supported for this method"}}
	}
	lines := r.Header["If-Match"]
	if len(lines) == 0 {
		return nil
	}
	if !c.has(etagField) {
		return []user.Violation{{Field: "If-Match", Message: "not supported for this method"}}
	}
	tags, star, ok := parseTags(lines)
	if star {
		return nil
	}
	for _, tag := range tags {
		ok = ok && tag.version() != ""
		c.etags = append(c.etags, tag.version())
	}
	if !ok || len(tags) > maxTags {
		return []user.Violation{{
			Field: "If-Match", Message: `must be entity tags in quotes such as "1-abc", at most ` + strconv.Itoa(maxTags) + `, or *`,
		}}
	}
	return nil
}

// readIdempotencyKey reads the header that sets request_id. The value may be quoted, as a
// structured field string.
func (c *call) readIdempotencyKey(r *http.Request) []user.Violation {
	lines := r.Header["Idempotency-Key"]
	if len(lines) == 0 || c.isRead() {
		return nil
	}
	violation := func(message string) []user.Violation {
		return []user.Violation{{Field: "Idempotency-Key", Message: message}}
	}
	if !c.has(requestIDField) {
		return violation("not supported for this method; set request_id on its items")
	}
	key := strings.TrimSpace(lines[0])
	if quoted, ok := strings.CutPrefix(key, `"`); ok {
		if key, ok = strings.CutSuffix(quoted, `"`); !ok {
			key = ""
		}
	}
	const uuidBytes = 36 // the canonical form; package uuid accepts others too
	if _, err := uuid.Parse(key); err != nil || len(lines) > 1 || len(key) != uuidBytes {
		return violation("must be one UUID, such as 6f1c0c5e-7d7c-4a5e-9d5b-0a4f3b1c2d3e")
	}
	c.requestID = key
	return nil
}

// readTimeout reads the timeout of the client.
func (c *call) readTimeout(r *http.Request) []user.Violation {
	text := r.Header.Get("X-Server-Timeout")
	if text == "" {
		return nil
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil || !(seconds > 0 && seconds <= maxTimeoutSeconds) {
		return []user.Violation{{Field: "X-Server-Timeout", Message: "must be a number of seconds"}}
	}
	c.timeout = time.Duration(math.Ceil(seconds*1000)) * time.Millisecond
	return nil
}

// applyHeader sets the fields given by headers. The message must not contradict them.
func (c *call) applyHeader() error {
	if c.requestID != "" {
		if given := c.text(requestIDField); given != "" && !strings.EqualFold(given, c.requestID) {
			return user.NewFieldErrorf(string(requestIDField), "differs from Idempotency-Key")
		}
		c.set(requestIDField, c.requestID)
	}
	if len(c.etags) == 0 {
		return nil
	}
	given := c.text(etagField)
	if given == "" {
		c.set(etagField, c.etags[0])
		return nil
	}
	for _, tag := range c.etags {
		if tag == given {
			c.etags = []string{given}
			return nil
		}
	}
	return user.NewFieldErrorf(string(etagField), "differs from If-Match")
}
