package client

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/user"
)

// The normal forms are those of the server.
func TestKeysEqualThoseOfTheServer(t *testing.T) {
	names := rapid.OneOf(rapid.String(), rapid.StringMatching(`[A-Za-z ßÉéÄΣςσＡ　ǅﬁ\x{200b}\x{13a0}\x{ab70}1-9]{3,20}`), rapid.StringMatching(`[A-Za-z1-9 ]{3,90}`))
	rapid.Check(t, func(t *rapid.T) {
		name := names.Draw(t, "username")
		if want, err := user.UsernameKey(name); err == nil {
			if got, ok := usernameKey(name); !ok || got != want {
				t.Errorf("usernameKey(%q) = %q, %t, want %q", name, got, ok, want)
			}
		}
		address := names.Draw(t, "local part") + "@" + rapid.StringMatching(`[A-Za-zäÜß]{1,8}[.。](ORG|org|example)|([a-zA-Z0-9]{1,64}[.-]){1,5}org`).Draw(t, "domain")
		if want, err := user.EmailKey(address); err == nil {
			if got, ok := emailKey(address); !ok || got != want {
				t.Errorf("emailKey(%q) = %q, %t, want %q", address, got, ok, want)
			}
		}
	})
}
