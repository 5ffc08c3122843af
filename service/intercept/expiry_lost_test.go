package intercept_test

import (
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/user"
)

// A stream ends when re-authentication fails or a used permission is revoked. A change of
// unused permissions does not end it.
func TestStreamsEndWhenReauthenticationFails(t *testing.T) {
	ann := auth.Caller{Subject: "ann", Kind: auth.Certificate, Permissions: auth.AllPermissions()}
	for name, test := range map[string]struct {
		change func(*auth.Caller) error
		code   connect.Code // 0: the stream continues
		reason user.Reason
	}{
		"a permission it uses":    {func(c *auth.Caller) error { c.Permissions = c.Permissions.Without(auth.StatusRead); return nil }, connect.CodePermissionDenied, user.PermissionMissing},
		"a permission of another": {func(c *auth.Caller) error { c.Permissions = c.Permissions.Without(auth.UsersDelete); return nil }, 0, ""},
		"the credentials":         {func(*auth.Caller) error { return &auth.RefusedError{Cause: auth.CauseUnverified} }, connect.CodeUnauthenticated, user.CredentialsInvalid},
		"the name":                {func(c *auth.Caller) error { c.Subject = "bob"; return nil }, connect.CodeUnauthenticated, user.CredentialsInvalid},
		"an unknown error":        {func(*auth.Caller) error { return errors.New("broken") }, connect.CodeUnauthenticated, user.CredentialsInvalid},
		"nothing":                 {func(*auth.Caller) error { return nil }, 0, ""},
	} {
		for _, kind := range []string{"server stream", "bidi stream"} {
			t.Run(name+", "+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					start := time.Now()
					var changed atomic.Bool
					client, _ := serveCallers(t, func(*http.Request) (auth.Caller, error) {
						caller := ann
						caller.Expires = start.Add(time.Hour)
						if !changed.Load() {
							return caller, nil
						}
						err := test.change(&caller)
						return caller, err
					}, true)
					time.AfterFunc(10*time.Minute, func() { changed.Store(true) })
					err := streams[kind](t.Context(), client)
					took := time.Since(start)
					if test.code == 0 {
						if took != time.Hour {
							t.Errorf("stream ended after %v: %v", took, err)
						}
						return
					}
					if connect.CodeOf(err) != test.code || errorInfo(err).GetReason() != string(test.reason) {
						t.Errorf("stream error = %v", err)
					}
					if took < 10*time.Minute || took > 10*time.Minute+20*time.Second {
						t.Errorf("stream ended after %v", took)
					}
				})
			})
		}
	}
}
