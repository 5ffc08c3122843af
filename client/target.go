package client

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
)

// endpoint is the address of a node.
type endpoint struct {
	url     string // base URL
	network string // of the connection
	addr    string // to connect to; empty: the host and port of the URL
}

func (e endpoint) String() string {
	if e.addr == "" {
		return e.url
	}
	return e.url + " (" + e.addr + ")"
}

// target is a parsed target: an endpoint, or a name to look up.
type target struct {
	endpoint
	host, port string // to look up; empty: none
}

// parseTarget parses http://host:port, https://host:port, dns+http://…, dns+https:// and unix:/path.
func parseTarget(text string) (target, error) {
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		return target{endpoint: endpoint{url: "http://localhost", network: "unix", addr: path}}, nil
	}
	u, err := url.Parse(text)
	if err != nil {
		return target{}, fmt.Errorf("target %q: %w", text, err)
	}
	scheme, dns := strings.CutPrefix(u.Scheme, "dns+")
	if scheme != "http" && scheme != "https" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return target{}, fmt.Errorf("target %q: must be http://host:port, https://host:port, dns+http://host:port, dns+https://host:port or unix:/path", text)
	}
	t := target{endpoint: endpoint{url: scheme + "://" + u.Host, network: "tcp"}}
	if dns {
		t.host, t.port = u.Hostname(), u.Port()
		if t.port == "" {
			t.port = map[string]string{"http": "80", "https": "443"}[scheme]
		}
	}
	return t, nil
}

// resolve looks up the names of the targets.
func (c *config) resolve(ctx context.Context, targets []target) ([]endpoint, error) {
	var all []endpoint
	for _, t := range targets {
		if t.host == "" {
			all = append(all, t.endpoint)
			continue
		}
		addrs, err := c.resolver(ctx, t.host)
		if err != nil {
			return nil, err
		}
		for _, addr := range addrs {
			e := t.endpoint
			e.addr = net.JoinHostPort(addr, t.port)
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b endpoint) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(all), nil
}

// lookUp looks up the targets until the context ends. After a failure the nodes are kept, and it tries again each
// second.
func (c *Client) lookUp(ctx context.Context, targets []target) {
	for {
		lookup, cancel := context.WithTimeout(ctx, 5*time.Second)
		endpoints, err := c.resolve(lookup, targets)
		cancel()
		interval := c.lookup
		if err != nil || len(endpoints) == 0 {
			interval = min(interval, time.Second)
			c.logger.WarnContext(ctx, "name lookup failed", "error", err)
		} else {
			c.balancer.update(endpoints) //nolint:contextcheck // health checks last as long as the client
		}
		if wait(ctx, interval) != nil {
			return
		}
	}
}
