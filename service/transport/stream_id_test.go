package transport

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
)

// The field that streamID reads exists in this release of Go.
func TestStreamID(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		http2 bool
		want  [2]string
	}{
		"HTTP/1.1": {false, [2]string{"0", "0"}},
		"HTTP/2":   {true, [2]string{"1", "3"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Stream", strconv.Itoa(int(streamID(w))))
			}))
			server.EnableHTTP2 = c.http2
			server.StartTLS()
			defer server.Close()
			for _, want := range c.want {
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				response, err := server.Client().Do(request)
				if err != nil {
					t.Fatal(err)
				}
				_ = response.Body.Close()
				if got := response.Header.Get("Stream"); got != want {
					t.Errorf("streamID() = %s, want %s", got, want)
				}
			}
		})
	}
}
