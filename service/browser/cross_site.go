package browser

import (
	"net/http"
	"net/url"
	"strings"
)

// IsCrossSite reports whether a browser made the request for a page of another origin. Browsers
// send Sec-Fetch-Site only over TLS and to loopback addresses; otherwise Origin or Referer is
// checked.
func IsCrossSite(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return false
	case "":
		return otherHost(r, r.Header.Get("Origin")) || otherHost(r, r.Header.Get("Referer"))
	}
	return true
}

// otherHost reports whether rawURL, an Origin or Referer, is of another host than the request.
func otherHost(r *http.Request, rawURL string) bool {
	if rawURL == "" {
		return false
	}
	u, err := url.Parse(rawURL)
	return err != nil || !strings.EqualFold(u.Host, r.Host)
}
