package browser

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// elsewhere is a listener at an address.
type elsewhere struct {
	net.Listener

	addr net.Addr
}

func (l elsewhere) Addr() net.Addr { return l.addr }

// Hosts are only checked on loopback addresses.
func TestHostCheckOnlyOnLoopback(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		addr net.Addr
		want int
	}{
		"IPv4 loopback": {&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, http.StatusMisdirectedRequest},
		"IPv6 loopback": {&net.TCPAddr{IP: net.IPv6loopback}, http.StatusMisdirectedRequest},
		"everywhere":    {&net.TCPAddr{IP: net.IPv6zero}, http.StatusNoContent},
		"a socket":      {&net.UnixAddr{Name: "/run/userd"}, http.StatusNoContent},
	} {
		response := httptest.NewRecorder()
		check := CheckHost(elsewhere{addr: test.addr}, nil, RefuseText)
		if check(response, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://users.example.com/", http.NoBody)) {
			response.WriteHeader(http.StatusNoContent)
		}
		if response.Code != test.want {
			t.Errorf("%s: got %d, want %d", name, response.Code, test.want)
		}
	}
}
