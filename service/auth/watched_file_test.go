package auth_test

import (
	"context"
	"crypto/x509"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/yourorg/userservice/service/auth"
)

// Unreadable rules stay valid for an hour; then callers are rejected until a reload succeeds.
// The failure is logged at intervals.
func TestStaleRules(t *testing.T) {
	path := writeFile(t, "rules.json", []byte(someRules))
	synctest.Test(t, func(t *testing.T) {
		log := new(logged)
		rules, err := auth.LoadCertificateRules(auth.CertificateRulesOptions{FileOptions: auth.FileOptions{Path: path, Logger: log.logger()}})
		if err != nil {
			t.Fatal(err)
		}
		a, err := auth.NewAuthenticator(auth.Options{Certificates: rules})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { a.Run(ctx) })
		defer running.Wait()
		defer cancel()
		expect := func(want auth.Cause) {
			t.Helper()
			c := leaf(time.Now(), "web.clients.example.org")
			_, err := a.Authenticate(over(t, c, true))
			if got := causeOf(err); got != want || (a.Err() == nil) != (want == "") {
				t.Errorf("cause = %q, want %q; Err() = %v", got, want, a.Err())
			}
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Minute)
		expect("")
		if n := strings.Count(log.String(), "level=ERROR"); n < 50 || n > 60 {
			t.Errorf("%d log lines in 1 h", n)
		}
		time.Sleep(2 * time.Minute)
		expect(auth.CauseUnverified)
		if !strings.Contains(log.String(), "callers rejected") {
			t.Error("rejection of callers is not logged")
		}
		if err := os.WriteFile(path, []byte(someRules), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		expect("")
	})
}

// A certificate is valid while its CA is trusted, independent of the handshake. CAs from a
// file that has been unreadable for too long are not trusted.
func TestRemovedAuthorityEndsOpenConnections(t *testing.T) {
	one, other := newAuthority(t), newAuthority(t)
	path := writeFile(t, "ca.pem", one.pem())
	rulesPath := writeFile(t, "rules.json", []byte(someRules))
	issued := one.issue(t, "web.clients.example.org")
	cert := parse(t, issued)
	synctest.Test(t, func(t *testing.T) {
		// The certificates were created outside of the bubble, with the real clock.
		time.Sleep(time.Until(cert.NotAfter.Add(-3 * time.Hour)))
		log := new(logged).logger()
		authorities, err := auth.LoadAuthorities(auth.FileOptions{Path: path, Logger: log})
		if err != nil {
			t.Fatal(err)
		}
		rules, err := auth.LoadCertificateRules(auth.CertificateRulesOptions{
			FileOptions: auth.FileOptions{Path: rulesPath, Logger: log}, Authorities: authorities.Pool,
		})
		if err != nil {
			t.Fatal(err)
		}
		a, err := auth.NewAuthenticator(auth.Options{Certificates: rules, Authorities: authorities})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { a.Run(ctx) })
		defer running.Wait()
		defer cancel()
		callerState := over(t, cert, true)
		expect := func(r *http.Request, want auth.Cause) {
			t.Helper()
			for range 2 { // the second time from the cache
				if _, err := a.Authenticate(r); causeOf(err) != want {
					t.Errorf("cause = %q, want %q", causeOf(err), want)
				}
			}
		}
		expect(callerState, "")
		for _, step := range []struct {
			authorities []byte
			want        auth.Cause
		}{
			{append(one.pem(), other.pem()...), ""}, {other.pem(), auth.CauseUnverified}, {one.pem(), ""},
		} {
			if err := os.WriteFile(path, step.authorities, 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(6 * time.Second)
			expect(callerState, step.want)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(61 * time.Minute)
		expect(callerState, auth.CauseUnverified)
	})
}

// A connection whose CA was replaced by one that expires earlier ends with this one.
func TestCertificateExpiresWithItsCurrentAuthority(t *testing.T) {
	old := newAuthority(t)
	cert := parse(t, old.issue(t, "web.clients.example.org"))
	now := time.Now()
	pool := x509.NewCertPool()
	pool.AddCert(old.until(t, now.Add(time.Hour)).cert)
	rules, err := auth.LoadCertificateRules(auth.CertificateRulesOptions{
		FileOptions: auth.FileOptions{Path: writeFile(t, "rules.json", []byte(someRules)), Logger: new(logged).logger()},
		Authorities: func() *x509.CertPool { return pool },
	})
	if err != nil {
		t.Fatal(err)
	}
	a, err := auth.NewAuthenticator(auth.Options{Certificates: rules, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	r := over(t, cert, true)
	for _, step := range []struct {
		after time.Duration
		want  auth.Cause
	}{{0, ""}, {2 * time.Hour, auth.CauseExpired}} {
		now = now.Add(step.after)
		if _, err := a.Authenticate(r); causeOf(err) != step.want {
			t.Errorf("after %v: Authenticate() = %v, want cause %q", step.after, err, step.want)
		}
	}
}
