package rest

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
)

const (
	typeJSON   = "application/json"
	typeEvents = "text/event-stream"
	typeLines  = "application/x-ndjson"

	typeConnectStream = "application/connect+proto"
)

// offers returns the media types of a method, the preferred one first.
func (res *resource) offers(method string) []string {
	var offers []string
	if res.routes[method] != nil {
		offers = append(offers, typeJSON)
	}
	return append(offers, res.streams[method].formats...)
}

// negotiate returns the offered media type with the highest quality in Accept; among equals the
// first. ok is false if none is acceptable.
func (res *resource) negotiate(r *http.Request, method string) (format string, ok bool) {
	offers := res.offers(method)
	accept := r.Header["Accept"]
	if strings.Trim(strings.Join(accept, ","), ", \t") == "" {
		return offers[0], true
	}
	best := 0.0
	for _, offer := range offers {
		group, _, _ := strings.Cut(offer, "/")
		if quality := qualityOf(accept, offer, group+"/*", "*/*"); quality > best {
			best, format = quality, offer
		}
	}
	return format, best > 0
}

// qualityOf returns the quality of a value in a header such as Accept. names are the matching
// elements, the most specific first; the most specific match wins. Without a match it is 0.
func qualityOf(lines []string, names ...string) float64 {
	quality := 0.0
	rank := len(names)
	for element := range strings.SplitSeq(strings.Join(lines, ","), ",") {
		name, parameters, _ := strings.Cut(element, ";")
		name = strings.ToLower(strings.TrimSpace(name))
		for i := range rank {
			if names[i] == name {
				rank, quality = i, parseQuality(parameters)
				break
			}
		}
	}
	return quality
}

// parseQuality returns the parameter q, 1 if absent, 0 if invalid.
func parseQuality(parameters string) float64 {
	for parameter := range strings.SplitSeq(parameters, ";") {
		key, value, _ := strings.Cut(strings.TrimSpace(parameter), "=")
		if !strings.EqualFold(strings.TrimSpace(key), "q") {
			continue
		}
		q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || !(q >= 0 && q <= 1) {
			return 0
		}
		return q
	}
	return 1
}

// isJSON reports whether a Content-Type is JSON in UTF-8.
func isJSON(contentType string) bool {
	media, parameters, err := mime.ParseMediaType(contentType)
	if err != nil || media != typeJSON {
		return false
	}
	for name, value := range parameters {
		if name != "charset" || !strings.EqualFold(value, "utf-8") {
			return false
		}
	}
	return true
}
