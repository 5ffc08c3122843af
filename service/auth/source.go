package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

const maxFileBytes = 1 << 20

// source reads the complete content of a file or URL.
type source func(context.Context) ([]byte, error)

// fileSource reads a regular file. A pipe could block, and would be empty on the next read.
func fileSource(path string) source {
	return func(context.Context) ([]byte, error) {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s is not a regular file", path)
		}
		f, err := os.Open(path) //nolint:gosec // the path is configured
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }() // read only
		return readWhole(f)
	}
}

// urlSource reads the response body of a GET request. It does not follow redirects, because
// only the configured URL is trusted.
func urlSource(location string, client *http.Client) (source, error) {
	u, err := url.Parse(location)
	switch {
	case err != nil:
		return nil, errors.New("not a URL") // the parser's error could contain a password
	case u.Host == "" || u.User != nil:
		return nil, errors.New("expected a URL with a host and without a password")
	case u.Scheme == "https", u.Scheme == "http" && loopback(u.Hostname()):
	default:
		return nil, errors.New("scheme must be https, or http for a loopback host")
	}
	one := *client
	one.Jar = nil
	one.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return func(ctx context.Context) ([]byte, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
		if err != nil {
			return nil, err
		}
		request.Header.Set("Accept", "application/jwk-set+json, application/json")
		response, err := one.Do(request)
		if err != nil {
			return nil, err
		}
		defer func() { _ = response.Body.Close() }() // read only
		if response.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("unexpected HTTP status %d, want 200", response.StatusCode)
		}
		return readWhole(response.Body)
	}, nil
}

func readWhole(r io.Reader) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxFileBytes+1))
	if err == nil && len(body) > maxFileBytes {
		return nil, fmt.Errorf("larger than %d bytes", maxFileBytes)
	}
	return body, err
}

func isURL(location string) bool { return strings.Contains(location, "://") }

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// newClient returns a client without keep-alives, because requests are minutes apart.
func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSHandshakeTimeout:    5 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableKeepAlives:      true,
	}}
}
