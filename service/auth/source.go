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

// maxFileBytes bounds what is read of keys and of rules.
const maxFileBytes = 1 << 20

// source reads something whole that may change.
type source func(context.Context) ([]byte, error)

// fileSource reads a regular file. A pipe would be waited for, and empty the next time.
func fileSource(path string) source {
	return func(context.Context) ([]byte, error) {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s is no regular file", path)
		}
		f, err := os.Open(path) //nolint:gosec // the operator names the file
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }() // it was only read
		return readWhole(f)
	}
}

// urlSource reads what a GET answers. Redirects are not followed: the operator has
// named one place, and only that one may say which keys count.
func urlSource(location string, client *http.Client) (source, error) {
	u, err := url.Parse(location)
	switch {
	case err != nil:
		return nil, errors.New("not a URL") // the error would repeat it
	case u.Host == "" || u.User != nil:
		return nil, errors.New("expected a URL with a host and without a password")
	case u.Scheme == "https", u.Scheme == "http" && loopback(u.Hostname()):
	default:
		return nil, errors.New("expected https; http would let anybody on the way choose the keys")
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
		defer func() { _ = response.Body.Close() }() // it was only read
		if response.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("answered %d instead of 200", response.StatusCode)
		}
		return readWhole(response.Body)
	}, nil
}

func readWhole(r io.Reader) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxFileBytes+1))
	if err == nil && len(body) > maxFileBytes {
		return nil, fmt.Errorf("more than %d bytes", maxFileBytes)
	}
	return body, err
}

// isURL tells a URL from a path.
func isURL(location string) bool { return strings.Contains(location, "://") }

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// newClient returns a client that keeps no connection: it is used once in minutes.
func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSHandshakeTimeout:    5 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableKeepAlives:      true,
	}}
}
