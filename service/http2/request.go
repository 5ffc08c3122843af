package http2

import (
	"context"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// requestContext is the context of a request. SetContext replaces the context in it.
type requestContext struct{ context.Context } //nolint:containedctx // it is one

// newRequest returns the request of a header block (section 8.3.1), or why it is malformed.
func (c *conn) newRequest(st *stream, b *headerBlock) (reason string) {
	if reason := b.checkRequest(); reason != "" {
		return reason
	}
	header := b.header()
	if b.authority == "" {
		b.authority = header.Get("Host")
	}
	r := new(http.Request).WithContext(&st.ctx)
	r.Method, r.Host, r.RequestURI = b.method, b.authority, b.path
	r.Proto, r.ProtoMajor = "HTTP/2.0", 2
	r.Header, r.RemoteAddr, r.TLS = header, c.remoteAddr, c.tlsState
	r.Body = http.NoBody
	r.Trailer = declaredTrailers(header)
	st.req = r
	if b.method == http.MethodConnect {
		r.URL, r.RequestURI = &url.URL{Host: b.authority}, b.authority
	} else if !st.parseURL(b.path) {
		return "invalid :path"
	}
	st.declared = -1
	if lengths, ok := header["Content-Length"]; ok {
		n, err := strconv.ParseUint(lengths[0], 10, 63)
		if err != nil || !same(lengths) {
			return "invalid content-length"
		}
		header["Content-Length"] = lengths[:1]
		st.declared = int64(n)
	}
	if b.endStream {
		if st.declared > 0 {
			return "content-length without a body"
		}
		return ""
	}
	r.Body, r.ContentLength = &st.body, st.declared
	st.body.stream = st
	if httpguts.HeaderValuesContainsToken(header["Expect"], "100-continue") {
		delete(header, "Expect")
		st.body.needsContinue = true
	}
	return ""
}

func same(values []string) bool {
	for _, v := range values[1:] {
		if v != values[0] {
			return false
		}
	}
	return true
}

// checkRequest checks the pseudo-header fields of a request.
func (b *headerBlock) checkRequest() (reason string) {
	switch {
	case b.malformed != "":
		return b.malformed
	case b.method == "":
		return "no :method"
	case b.method == http.MethodConnect:
		if b.seen&(seenScheme|seenPath) != 0 || b.authority == "" {
			return "invalid CONNECT"
		}
		return ""
	case b.scheme != "http" && b.scheme != "https":
		return "invalid :scheme"
	case b.path == "", b.path[0] != '/' && (b.path != "*" || b.method != http.MethodOptions):
		return "invalid :path"
	case strings.IndexByte(b.authority, '@') >= 0:
		return "user information in :authority"
	}
	return ""
}

// parseURL sets the URL of the request. Most paths need no parsing.
func (st *stream) parseURL(path string) bool {
	if plainPath(path) {
		st.url.Path = path
		st.req.URL = &st.url
		return true
	}
	u, err := url.ParseRequestURI(path)
	st.req.URL = u
	return err == nil
}

// plainPath reports whether a path has no query and no byte that a URL escapes.
func plainPath(path string) bool {
	for i := range len(path) {
		switch c := path[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_', c == '~':
		case c == '/' && (i != 1 || path[0] != '/'): // "//host" has no authority, leave it to net/url
		default:
			return false
		}
	}
	return path != ""
}

// header returns the regular fields. All values share one array.
func (b *headerBlock) header() http.Header {
	header := make(http.Header, len(b.fields))
	values := make([]string, len(b.fields))
	for i, f := range b.fields {
		name := canonical(f.Name)
		values[i] = f.Value
		if before, ok := header[name]; ok {
			header[name] = append(before, f.Value)
		} else {
			header[name] = values[i : i+1 : i+1]
		}
	}
	if cookies := header["Cookie"]; len(cookies) > 1 { // section 8.2.3
		header["Cookie"] = []string{strings.Join(cookies, "; ")}
	}
	return header
}

// declaredTrailers removes the field Trailer and returns the names in it.
func declaredTrailers(header http.Header) (trailer http.Header) {
	for _, list := range header["Trailer"] {
		for name := range strings.SplitSeq(list, ",") {
			switch name = textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name)); name {
			case "", "Transfer-Encoding", "Trailer", "Content-Length":
			default:
				if trailer == nil {
					trailer = make(http.Header)
				}
				trailer[name] = nil
			}
		}
	}
	delete(header, "Trailer")
	return trailer
}

// canonical returns the canonical form of a name in lower case.
func canonical(name string) string {
	if known, ok := canonicalNames[name]; ok {
		return known
	}
	return http.CanonicalHeaderKey(name)
}

// canonicalNames and lowerNames have frequent names, which need no allocation. They are never written.
var canonicalNames, lowerNames = knownNames(
	"Accept", "Accept-Encoding", "Accept-Language", "Access-Control-Allow-Origin", "Access-Control-Expose-Headers",
	"Authorization", "Cache-Control", "Connect-Accept-Encoding", "Connect-Content-Encoding",
	"Connect-Protocol-Version", "Connect-Timeout-Ms", "Content-Encoding", "Content-Length", "Content-Type", "Cookie", "Date",
	"Etag", "Forwarded", "Grpc-Accept-Encoding", "Grpc-Encoding", "Grpc-Message", "Grpc-Status", "Grpc-Status-Details-Bin",
	"Grpc-Timeout", "Host", "If-Match", "If-None-Match", "Last-Modified", "Location", "Origin", "Referer",
	"Retry-After", "Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site", "Server", "Set-Cookie", "Te", "Traceparent",
	"Tracestate", "Trailer", "User-Agent", "Vary", "Via", "X-Content-Type-Options", "X-Forwarded-For", "X-Grpc-Web",
	"X-Request-Id", "X-User-Agent",
)

func knownNames(names ...string) (byLower, byCanonical map[string]string) {
	byLower, byCanonical = make(map[string]string, len(names)), make(map[string]string, len(names))
	for _, name := range names {
		lowered := strings.ToLower(name)
		byLower[lowered], byCanonical[name] = name, lowered
	}
	return byLower, byCanonical
}
