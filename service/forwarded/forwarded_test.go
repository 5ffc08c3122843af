package forwarded

import (
	"net/http"
	"strings"
	"testing"
)

func TestClientAddress(t *testing.T) {
	t.Parallel()
	const proxy = "10.0.0.1:4711"
	for name, test := range map[string]struct {
		peer   string
		header []string // name and value in turn
		want   string
	}{
		"no header":                        {proxy, nil, proxy},
		"one hop":                          {proxy, []string{"X-Forwarded-For", "203.0.113.7"}, "203.0.113.7"},
		"a peer that is not trusted":       {"198.51.100.1:99", []string{"X-Forwarded-For", "203.0.113.7"}, "198.51.100.1:99"},
		"a claim of the client's":          {proxy, []string{"X-Forwarded-For", "192.0.2.1, 203.0.113.7"}, "203.0.113.7"},
		"a chain of proxies":               {proxy, []string{"X-Forwarded-For", "192.0.2.1, 203.0.113.7, 10.9.9.9, 10.0.0.2"}, "203.0.113.7"},
		"proxies alone":                    {proxy, []string{"X-Forwarded-For", "10.9.9.9, 10.0.0.2"}, "10.9.9.9"},
		"several lines":                    {proxy, []string{"X-Forwarded-For", "192.0.2.1", "X-Forwarded-For", "203.0.113.7,10.0.0.2"}, "203.0.113.7"},
		"a port":                           {proxy, []string{"X-Forwarded-For", "203.0.113.7:1234"}, "203.0.113.7:1234"},
		"IPv6":                             {proxy, []string{"X-Forwarded-For", "2001:db8::1"}, "2001:db8::1"},
		"IPv6 in brackets":                 {proxy, []string{"X-Forwarded-For", "[2001:DB8::1]"}, "2001:db8::1"},
		"IPv6 with a port":                 {proxy, []string{"X-Forwarded-For", "[2001:db8::1]:80"}, "[2001:db8::1]:80"},
		"IPv4 within IPv6":                 {proxy, []string{"X-Forwarded-For", "::ffff:203.0.113.7"}, "203.0.113.7"},
		"a trusted proxy within IPv6":      {"[::ffff:10.0.0.1]:4711", []string{"X-Forwarded-For", "203.0.113.7"}, "203.0.113.7"},
		"a trusted proxy of IPv6":          {"[2001:db8:1::9]:4711", []string{"X-Forwarded-For", "203.0.113.7"}, "203.0.113.7"},
		"no address":                       {proxy, []string{"X-Forwarded-For", "somebody"}, proxy},
		"no address behind a claim":        {proxy, []string{"X-Forwarded-For", "192.0.2.1, unknown"}, proxy},
		"no address behind a proxy":        {proxy, []string{"X-Forwarded-For", "192.0.2.1, unknown, 10.0.0.2"}, "10.0.0.2"},
		"empty":                            {proxy, []string{"X-Forwarded-For", ""}, proxy},
		"commas":                           {proxy, []string{"X-Forwarded-For", "203.0.113.7,,"}, proxy},
		"a zone":                           {proxy, []string{"X-Forwarded-For", "fe80::1%eth0"}, proxy},
		"a prefix":                         {proxy, []string{"X-Forwarded-For", "203.0.113.0/24"}, proxy},
		"an old form of IPv4":              {proxy, []string{"X-Forwarded-For", "203.113.7"}, proxy},
		"Forwarded":                        {proxy, []string{"Forwarded", "for=203.0.113.7;proto=https;by=10.0.0.1"}, "203.0.113.7"},
		"Forwarded in quotes":              {proxy, []string{"Forwarded", `proto=https; For="[2001:db8:cafe::17]:4711"`}, "[2001:db8:cafe::17]:4711"},
		"Forwarded with several elements":  {proxy, []string{"Forwarded", `for=192.0.2.1, for=203.0.113.7;host="a,b;for=192.0.2.9", for=10.0.0.2`}, "203.0.113.7"},
		"Forwarded with a hidden name":     {proxy, []string{"Forwarded", "for=192.0.2.1, for=_hidden"}, proxy},
		"Forwarded without for":            {proxy, []string{"Forwarded", "for=192.0.2.1, proto=https"}, proxy},
		"a quote that does not end":        {proxy, []string{"Forwarded", `for="203.0.113.7`}, proxy},
		"an escaped quote":                 {proxy, []string{"Forwarded", `for=192.0.2.1;host="a\",for=192.0.2.2", for=203.0.113.7`}, "203.0.113.7"},
		"both agree":                       {proxy, []string{"Forwarded", "for=203.0.113.7", "X-Forwarded-For", "203.0.113.7"}, "203.0.113.7"},
		"both agree, one has the port":     {proxy, []string{"Forwarded", `for="203.0.113.7:99"`, "X-Forwarded-For", "203.0.113.7"}, "203.0.113.7:99"},
		"a forged Forwarded is passed on":  {proxy, []string{"Forwarded", "for=192.0.2.1", "X-Forwarded-For", "203.0.113.7"}, proxy},
		"a malformed Forwarded passed on":  {proxy, []string{"Forwarded", "nothing", "X-Forwarded-For", "203.0.113.7"}, "203.0.113.7"},
		"an unknown Forwarded passed on":   {proxy, []string{"Forwarded", "for=unknown", "X-Forwarded-For", "203.0.113.7"}, proxy},
		"a socket that is not trusted":     {UnixPeer, []string{"X-Forwarded-For", "203.0.113.7"}, UnixPeer},
		"a hop that claims to be a socket": {proxy, []string{"X-Forwarded-For", "unix"}, proxy},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := Parse([]string{"10.0.0.0/8", "2001:db8:1::/48", "127.0.0.1"})
			if err != nil {
				t.Fatal(err)
			}
			header := http.Header{}
			for i := 0; i < len(test.header); i += 2 {
				header.Add(test.header[i], test.header[i+1])
			}
			if got := p.client(test.peer, header); got != test.want {
				t.Errorf("client(%s, %v) = %s, want %s", test.peer, test.header, got, test.want)
			}
		})
	}
}

func TestTrustedSocket(t *testing.T) {
	t.Parallel()
	p, err := Parse([]string{"unix"})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.client(UnixPeer, http.Header{"X-Forwarded-For": {"203.0.113.7"}}); got != "203.0.113.7" {
		t.Errorf("client = %s, want 203.0.113.7", got)
	}
	if got := p.client("127.0.0.1:80", http.Header{"X-Forwarded-For": {"203.0.113.7"}}); got != "127.0.0.1:80" {
		t.Errorf("client = %s, want that of the peer", got)
	}
}

func TestTrustedProxyValues(t *testing.T) {
	t.Parallel()
	for value, ok := range map[string]bool{
		"10.0.0.0/8": true, "10.1.2.3/8": true, "127.0.0.1": true, "::1": true, "2001:db8::/32": true, "unix": true, "0.0.0.0/0": true,
		"": false, "localhost": false, "10.0.0.0/33": false, "10.0.0.1:80": false, "10.0.0": false, "*": false,
		"::ffff:10.0.0.0/104": false, "::ffff:10.0.0.1": false, "fe80::1%eth0": false, "unix:/run/x": false,
	} {
		_, err := Parse([]string{value})
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "expected an address, a CIDR") {
			t.Errorf("Parse(%q): got %v, want ok %v", value, err, ok)
		}
	}
}
