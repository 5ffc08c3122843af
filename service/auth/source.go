package auth

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/yourorg/userservice/service/filewatch"
)

// source reads the complete content of a file or URL.
type source func(context.Context) ([]byte, error)

func fileSource(path string) source {
	return func(context.Context) ([]byte, error) { return filewatch.Read(path) }
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
		return filewatch.ReadAll(response.Body)
	}, nil
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
