package rest

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
)

// EtagHeader is the header in which GetUser gives the strong entity tag of the
// user's version: its etag in double quotes.
const EtagHeader = "Etag"

// An entityTag is one of a list in If-Match or If-None-Match.
type entityTag struct {
	opaque string // without the quotes
	weak   bool
}

// version is the part of the tag that stands for the user's version: what an
// update takes as etag. The rest, see representation, says how it was shown.
func (t entityTag) version() string {
	version, _, _ := strings.Cut(t.opaque, ";")
	return version
}

// representation returns the tag of an answer to a URL with a query. The query says
// which fields are shown, and over Connect in which encoding, so that a filtered
// answer never passes for the whole user.
func representation(etag string, rawQuery, coding string) string {
	if rawQuery == "" && coding == "" {
		return etag
	}
	sum := sha256.Sum256([]byte(coding + "?" + rawQuery))
	return strings.TrimSuffix(etag, `"`) + ";" + hex.EncodeToString(sum[:6]) + `"`
}

// parseTags takes a list of entity tags apart. star: the list is "*". ok is false
// for what is no such list.
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

// ConditionalGet gives the answers of GetUser to GET and HEAD an ETag that is
// distinct for each representation, and answers 304 without a body where
// If-None-Match has it. It is meant for the REST route, where it is in place
// already, and for Connect GET. Nothing is buffered.
//
// It acts on answers that carry EtagHeader, which the handler of GetUser sets, and
// leaves everything else as it is.
func ConditionalGet(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			next.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(&conditionalWriter{ResponseWriter: w, request: r, rawQuery: r.URL.RawQuery}, r)
	})
}

type conditionalWriter struct {
	http.ResponseWriter

	request     *http.Request
	rawQuery    string // of the caller's URL, which handlers may rewrite
	started     bool
	notModified bool
}

// Unwrap lets http.ResponseController find the writer below.
func (c *conditionalWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// Flush sends what was written.
func (c *conditionalWriter) Flush() {
	if !c.started {
		c.WriteHeader(http.StatusOK)
	}
	_ = http.NewResponseController(c.ResponseWriter).Flush()
}

// WriteHeader sends the status, which is 304 where the caller has the answer.
func (c *conditionalWriter) WriteHeader(status int) {
	if !c.started && status >= http.StatusOK {
		c.started = true
		if status == http.StatusOK && c.Header().Get(EtagHeader) != "" {
			status = c.decide()
		}
	}
	c.ResponseWriter.WriteHeader(status)
}

// decide completes the header of an answer with an ETag.
func (c *conditionalWriter) decide() int {
	header := c.Header()
	etag := representation(header.Get(EtagHeader), c.rawQuery, header.Get("Content-Encoding"))
	header.Set(EtagHeader, etag)
	if header.Get("Cache-Control") == "" {
		// To be kept, but not to be shown without asking, nor to anybody else.
		header.Set("Cache-Control", "private, no-cache")
	}
	tags, star, ok := parseTags(c.request.Header["If-None-Match"])
	if !ok || !star && !holds(tags, etag) {
		return http.StatusOK
	}
	c.notModified = true
	for _, name := range []string{"Content-Type", "Content-Length", "Content-Encoding"} {
		header.Del(name)
	}
	return http.StatusNotModified
}

// holds compares weakly, as If-None-Match does.
func holds(tags []entityTag, etag string) bool {
	for _, tag := range tags {
		if `"`+tag.opaque+`"` == etag {
			return true
		}
	}
	return false
}

// Write sends a part of the body, if there is to be one.
func (c *conditionalWriter) Write(data []byte) (int, error) {
	if !c.started {
		c.WriteHeader(http.StatusOK)
	}
	if c.notModified {
		return len(data), nil
	}
	return c.ResponseWriter.Write(data)
}
