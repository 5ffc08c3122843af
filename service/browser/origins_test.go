package browser

import (
	"strings"
	"testing"
)

func TestAllowedOrigins(t *testing.T) {
	t.Parallel()
	for value, origins := range map[string]map[string]bool{
		"https://app.example.com": {
			"https://app.example.com": true, "http://app.example.com": false, "https://app.example.com:8443": false,
			"https://App.example.com": false, "https://app.example.com.": false, "https://b.app.example.com": false, "null": false, "": false,
		},
		"https://*.example.com": {
			"https://app.example.com": true, "https://a-b.example.com": true, "https://xn--bcher-kva.example.com": true,
			"https://example.com": false, "https://.example.com": false, "https://a.b.example.com": false, "http://app.example.com": false,
			"https://app.example.com:8443": false, "https://evil.com/.example.com": false, "https://evil.com:80.example.com": false,
			"https://u@x.example.com": false, "https://evilexample.com": false, "https://app.example.com.evil.com": false,
		},
		"http://*.localhost:3000": {"http://app.localhost:3000": true, "http://localhost:3000": false, "http://app.localhost": false},
		"http://[::1]:3000":       {"http://[::1]:3000": true, "http://[::1]": false},
		"capacitor://localhost":   {"capacitor://localhost": true, "http://localhost": false},
		"http://127.0.0.1:5173":   {"http://127.0.0.1:5173": true},
		"http://my_host:5173":     {"http://my_host:5173": true},
	} {
		all, err := ParseOrigins([]string{value})
		if err != nil {
			t.Errorf("ParseOrigins(%q): %v", value, err)
			continue
		}
		for origin, want := range origins {
			if got := all.allow(origin); got != want {
				t.Errorf("%s: allow(%q) = %v, want %v", value, origin, got, want)
			}
		}
	}
}

// An origin in a form that no browser sends is rejected, with the canonical form.
func TestNonCanonicalOrigins(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"":                             "expected an origin such as",
		"*":                            "expected an origin such as",
		"null":                         "expected an origin such as",
		"app.example.com":              "expected an origin such as",
		"app.example.com:443":          "expected an origin such as",
		"//app.example.com":            "expected an origin such as",
		"https:app.example.com":        "expected an origin such as",
		"https://":                     "expected an origin such as",
		"file:///":                     "expected an origin such as",
		"https://app.example.com/":     "without user, path and query: https://app.example.com",
		"https://app.example.com/a":    "without user, path and query: https://app.example.com",
		"https://app.example.com?":     "without user, path and query",
		"https://app.example.com?a=b":  "without user, path and query",
		"https://app.example.com#":     "without user, path and query",
		"https://u@app.example.com":    "without user, path and query",
		"https://App.Example.com":      "browsers send https://app.example.com",
		"HTTPS://app.example.com":      "browsers send https://app.example.com",
		"https://app.example.com:443":  "browsers send https://app.example.com",
		"http://app.example.com:80":    "browsers send http://app.example.com",
		"http://app.example.com:0080":  "browsers send http://app.example.com",
		"http://app.example.com:08080": "browsers send http://app.example.com:8080",
		"http://app.example.com:":      "browsers send http://app.example.com",
		"http://app.example.com:0":     "expected a port",
		"http://app.example.com:70000": "expected a port",
		"http://app.example.com:x":     "expected an origin such as",
		"https://bücher.example":       "browsers send https://xn--bcher-kva.example",
		"https://*":                    "expected * as the whole of the first label",
		"https://*.*.example.com":      "expected * as the whole of the first label",
		"https://a.*.example.com":      "expected * as the whole of the first label",
		"https://*app.example.com":     "expected * as the whole of the first label",
		"https://app*.example.com":     "expected * as the whole of the first label",
		"*://app.example.com":          "expected an origin such as",
		"https://app.example.com:*":    "expected an origin such as",
		"https://*.":                   "expected a host name",
		"https://*.127.0.0.1":          "has no subdomains",
		"https://*.[::1]":              "expected",
		"https://*.Example.com":        "browsers send https://*.example.com",
		"http://[0:0:0:0:0:0:0:1]":     "browsers send http://[::1]",
		"http://[::1%25eth0]":          "expected an IPv6 address",
		"http://127.1":                 "expected an IPv4 address or a host name",
		"http://0x7f.1":                "expected an IPv4 address or a host name",
		"http://2130706433":            "expected an IPv4 address or a host name",
		"https://a..example.com":       "expected a host name",
		"https://.example.com":         "expected a host name",
		"https://app.example.com ":     "expected",
		" https://app.example.com":     "expected",
		"https://a.example,b.example":  "expected a host name",
	} {
		_, err := ParseOrigins([]string{value})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseOrigins(%q): got %v, want %q", value, err, want)
		}
	}
}
