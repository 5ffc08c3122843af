package intercept

import (
	"testing"
	"time"

	"github.com/yourorg/userservice/service/reqinfo"
)

// A message whose bytes another stream has made is not written after the credentials have expired.
func TestSharedSendsEndWithCredentials(t *testing.T) {
	for _, test := range []struct {
		left time.Duration
		ends bool
	}{{time.Hour, false}, {-time.Second, true}} {
		conn := &expiringConn{ctx: t.Context(), expires: time.Now().Add(test.left)}
		var sends reqinfo.SharedSends
		conn.Share(nil, &sends)
		if err := sends.Check(); (err != nil) != test.ends {
			t.Errorf("%v before the end: got %v, want an error: %t", test.left, err, test.ends)
		}
	}
}
