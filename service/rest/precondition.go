package rest

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
)

// EtagHeader is the header in which GetUser returns the strong entity tag of a user: its
// etag in double quotes.
const EtagHeader = "Etag"

// An entityTag is an element of If-Match or If-None-Match.
type entityTag struct {
	opaque string // without the quotes
	weak   bool
}

// version returns the part of the tag that is the user's etag. The rest identifies the
// representation.
func (t entityTag) version() string {
	version, _, _ := strings.Cut(t.opaque, ";")
	return version
}

// representation returns the entity tag of a representation. It depends on the query (the field
// filter, and the encoding over Connect) and on the content coding, so that different
// representations have different tags.
func representation(etag string, rawQuery, coding string) string {
	if rawQuery == "" && coding == "" {
		return etag
	}
	sum := sha256.Sum256([]byte(coding + "?" + rawQuery))
	return strings.TrimSuffix(etag, `"`) + ";" + hex.EncodeToString(sum[:6]) + `"`
}

// parseTags parses a list of entity tags. star is set for "*". ok is false for a malformed list.
func parseTags(lines []string) (tags []entityTag, star, ok bool) {
	rest := strings.TrimSpace(strings.Join(lines, ","))
	if rest == "*" {
		return nil, true, true
	}
	for rest != "" {
		if after, comma := strings.CutPrefix(rest, ","); comma {
			rest = strings.TrimLeft(after, " \t")
			continue
		}
		var tag entityTag
		rest, tag.weak = strings.CutPrefix(rest, "W/")
		quoted, found := strings.CutPrefix(rest, `"`)
		end := strings.IndexByte(quoted, '"')
		if !found || end < 0 {
			return nil, false, false
		}
		tag.opaque = quoted[:end]
		tags = append(tags, tag)
		rest = strings.TrimLeft(quoted[end+1:], " \t")
		if rest != "" && rest[0] != ',' {
			return nil, false, false
		}
	}
	return tags, false, len(tags) > 0
}

// ConditionalGet returns a writer that sets a representation-specific ETag on responses to GET
// and HEAD that have EtagHeader, and responds 304 if If-None-Match matches, and 412 if If-Match does not. Nothing is
// buffered. For other methods it returns w.
// The REST routes include it; Connect GET needs it too.
func ConditionalGet(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return w
	}
	return &conditionalWriter{ResponseWriter: w, request: r, rawQuery: r.URL.RawQuery}
}

type conditionalWriter struct {
	http.ResponseWriter

	request     *http.Request
	rawQuery    string // of the original URL, which handlers may rewrite
	started     bool
	withoutBody bool
}

// Unwrap supports http.ResponseController.
func (c *conditionalWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// Flush sends the written data.
func (c *conditionalWriter) Flush() {
	if !c.started {
		c.WriteHeader(http.StatusOK)
	}
	_ = http.NewResponseController(c.ResponseWriter).Flush()
}

// WriteHeader sends the status, or that of a precondition.
func (c *conditionalWriter) WriteHeader(status int) {
	if !c.started && status >= http.StatusOK {
		c.started = true
		if status == http.StatusOK && c.Header().Get(EtagHeader) != "" {
			status = c.decide()
		}
	}
	c.ResponseWriter.WriteHeader(status)
}

// decide sets the header and returns the status of a response with an ETag.
func (c *conditionalWriter) decide() int {
	header := c.Header()
	etag := representation(header.Get(EtagHeader), c.rawQuery, header.Get("Content-Encoding"))
	header.Set(EtagHeader, etag)
	if header.Get("Cache-Control") == "" {
		// Private caches may store the response and must revalidate it.
		header.Set("Cache-Control", "private, no-cache")
	}
	status := c.precondition(etag)
	if status != http.StatusOK {
		c.withoutBody = true
		for _, name := range []string{"Content-Type", "Content-Length", "Content-Encoding"} {
			header.Del(name)
		}
	}
	return status
}

// precondition evaluates If-Match and If-None-Match in the order of RFC 9110, section 13.2.2.
func (c *conditionalWriter) precondition(etag string) int {
	if lines := c.request.Header["If-Match"]; len(lines) > 0 {
		if tags, star, _ := parseTags(lines); !star && !contains(tags, etag) {
			return http.StatusPreconditionFailed
		}
	}
	if tags, star, ok := parseTags(c.request.Header["If-None-Match"]); ok && (star || contains(tags, etag)) {
		return http.StatusNotModified
	}
	return http.StatusOK
}

// contains compares weakly, as If-None-Match requires, and because compressing proxies weaken the tags of If-Match.
func contains(tags []entityTag, etag string) bool {
	for _, tag := range tags {
		if `"`+tag.opaque+`"` == etag {
			return true
		}
	}
	return false
}

// Write writes the body unless the status is that of a precondition.
func (c *conditionalWriter) Write(data []byte) (int, error) {
	if !c.started {
		c.WriteHeader(http.StatusOK)
	}
	if c.withoutBody {
		return len(data), nil
	}
	return c.ResponseWriter.Write(data)
}
