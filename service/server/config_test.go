package server_test

import (
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/server"
)

func TestDefaultsAreValid(t *testing.T) {
	t.Parallel()
	config, err := server.Defaults()
	if err != nil {
		t.Fatal(err)
	}
	if err := config.Validate(); err != nil {
		t.Error(err)
	}
	if config.Listen != "127.0.0.1:8080" || config.MaxMessageBytes != 4<<20 || config.StallTimeout.Seconds() != 15 {
		t.Errorf("got %+v", config)
	}
}

func TestBadSettingsSayWhatWasExpected(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*server.Config)
		want   string // empty: it is fine
	}{
		"everywhere":           {func(c *server.Config) { c.Listen = ":8080" }, "authentication is disabled"},
		"everywhere, accepted": {func(c *server.Config) { c.Listen, c.InsecureNoAuth = ":8080", true }, ""},
		"open and locked": {func(c *server.Config) {
			c.InsecureNoAuth, c.JWTJWKS, c.JWTIssuer, c.JWTAudience = true, "keys.json", "i", "a"
		}, "--insecure-no-auth conflicts with"},
		"a name":        {func(c *server.Config) { c.Listen = "example.com:80" }, "--insecure-no-auth"},
		"localhost":     {func(c *server.Config) { c.Listen = "localhost:0" }, ""},
		"IPv6 loopback": {func(c *server.Config) { c.Listen = "[::1]:0" }, ""},
		"no port":       {func(c *server.Config) { c.Listen = "127.0.0.1" }, "expected HOST:PORT"},
		"bad port":      {func(c *server.Config) { c.AdminListen = "127.0.0.1:http" }, "--admin-listen=127.0.0.1:http: expected HOST:PORT"},
		"everywhere, with tokens": {func(c *server.Config) {
			c.Listen, c.JWTJWKS, c.JWTIssuer, c.JWTAudience = ":8080", "keys.json", "i", "a"
		}, ""},
		"everywhere, with rules": {func(c *server.Config) {
			c.Listen, c.TLSCert, c.TLSKey, c.TLSClientCA, c.TLSClientRules = ":8080", "c", "k", "ca", "rules"
		}, ""},
		"everywhere, with TLS alone": {func(c *server.Config) { c.Listen, c.TLSCert, c.TLSKey = ":8080", "c", "k" }, "authentication is disabled"},
		"keys without an issuer":     {func(c *server.Config) { c.JWTJWKS, c.JWTAudience = "keys.json", "a" }, "--jwt-jwks requires --jwt-issuer"},
		"keys without an audience":   {func(c *server.Config) { c.JWTJWKS, c.JWTIssuer = "keys.json", "i" }, "--jwt-jwks requires --jwt-audience"},
		"an issuer without keys":     {func(c *server.Config) { c.JWTIssuer = "i" }, "--jwt-issuer requires --jwt-jwks"},
		"a certificate without key":  {func(c *server.Config) { c.TLSCert = "c" }, "--tls-cert requires --tls-key"},
		"a key without certificate":  {func(c *server.Config) { c.TLSKey = "k" }, "--tls-key requires --tls-cert"},
		"rules without authorities":  {func(c *server.Config) { c.TLSCert, c.TLSKey, c.TLSClientRules = "c", "k", "r" }, "--tls-client-rules requires --tls-client-ca"},
		"authorities alone":          {func(c *server.Config) { c.TLSCert, c.TLSKey, c.TLSClientCA = "c", "k", "ca" }, "does not authenticate callers"},
		"authorities without TLS":    {func(c *server.Config) { c.TLSClientCA, c.TLSClientRules = "ca", "r" }, "--tls-client-ca requires --tls-cert"},
		"reflection for friends":     {func(c *server.Config) { c.Reflection = "friends" }, "expected off, callers or open"},
		"log retention":              {func(c *server.Config) { c.LogRetention = 24 * time.Hour }, ""},
		"log retention too short":    {func(c *server.Config) { c.LogRetention = time.Hour }, "--log-retention=1h0m0s: expected 0 or 24h0m0s to"},
		"negative log retention":     {func(c *server.Config) { c.LogRetention = -time.Hour }, "because results of request ids are read from the log"},
		"no admin":                   {func(c *server.Config) { c.AdminListen = "" }, ""},
		"admin off":                  {func(c *server.Config) { c.AdminListen = "off" }, ""},
		"origin with a path":         {func(c *server.Config) { c.CORSOrigin = []string{"https://a.example/x"} }, "expected an origin without user, path and query"},
		"any origin":                 {func(c *server.Config) { c.CORSOrigin = []string{"*"} }, "expected an origin"},
		"hosts":                      {func(c *server.Config) { c.AllowHost = []string{"users.example.com", "::2"} }, ""},
		"a host with a port":         {func(c *server.Config) { c.AllowHost = []string{"users.example.com:80"} }, "expected a host name without port"},
		"any host":                   {func(c *server.Config) { c.AllowHost = []string{"*"} }, "expected a host name"},
		"small messages":             {func(c *server.Config) { c.MaxMessageBytes = 3 }, "expected 1KiB to 1GiB"},
		"no streams":                 {func(c *server.Config) { c.MaxConcurrentStreams = 0 }, "--max-concurrent-streams=0"},
		"no idling":                  {func(c *server.Config) { c.IdleTimeout = 0 }, "--idle-timeout=0s: expected 100ms to 24h"},
		"no time for bodies":         {func(c *server.Config) { c.BodyTimeout = 0 }, "--body-timeout=0s: expected 100ms to 1h"},
		"no time for headers":        {func(c *server.Config) { c.HeaderTimeout = 0 }, "--header-timeout=0s: expected 100ms to 1h"},
		"no time for calls":          {func(c *server.Config) { c.MaxCallDuration = 0 }, "--max-call-duration=0s: expected 100ms to 24h"},
		"no patience":                {func(c *server.Config) { c.StallTimeout = 0 }, "--stall-timeout=0s: expected 100ms to 1h"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config, err := server.Defaults()
			if err != nil {
				t.Fatal(err)
			}
			test.change(&config)
			err = config.Validate()
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]server.Bytes{"4MiB": 4 << 20, "512 KiB": 512 << 10, "77": 77, "5B": 5, "1GiB": 1 << 30} {
		var b server.Bytes
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want {
			t.Errorf("%s: got %d, %v", text, b, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "4MB", "9999999999GiB", "1.5MiB"} {
		var b server.Bytes
		if err := b.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: got %d", text, b)
		}
	}
	if got := server.Bytes(4 << 20).String(); got != "4MiB" {
		t.Errorf("got %s", got)
	}
}

func TestStoreAddress(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"sqlite:/var/x.db": "/var/x.db", "sqlite:x.db": "x.db", "sqlite:./:memory:": "./:memory:", "sqlite:a b?.db": "a b?.db",
	} {
		if got, err := server.StorePath(address); err != nil || got != want {
			t.Errorf("%s: got %q, %v", address, got, err)
		}
	}
	for address, want := range map[string]string{
		"sqlite:": "path is empty", "sqlite::memory:": "in-memory", "sqlite::MEMORY:": "in-memory", "sqlite::": "in-memory",
		"sqlite:file:x.db?mode=memory": "is a URI", "sqlite:a\nb.db": "control character", "sqlite:a\x00.db": "control character", "sqlite:a\x7f.db": "control character",
		"sqlite:a\u0085.db": "control character", "sqlite: x.db": "a space", "sqlite:x.db ": "a space", "postgres://host/db": "is for SQLite", "x.db": "expected sqlite:PATH",
	} {
		if _, err := server.StorePath(address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", address, err)
		}
	}
}

func TestValidateStore(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"sqlite:x.db", "postgres://host/db", "postgresql://user:secret@host:5433/db?sslmode=verify-full", "postgres://"} {
		if err := server.ValidateStore(address); err != nil {
			t.Errorf("ValidateStore(%q) = %v, want no error", address, err)
		}
	}
	for _, address := range []string{"", "x.db", "mysql://host/db", "postgres://user:secret@host:port/db", "postgres://user:secret@host/db?pool_max_conns=x", "postgres://user:secret@host/db?pool_max_conns=5"} {
		if err := server.ValidateStore(address); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("ValidateStore(%q) = %v, want an error without the password", address, err)
		}
	}
}
