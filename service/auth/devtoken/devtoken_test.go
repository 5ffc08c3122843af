package devtoken_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/auth/devtoken"
)

// A token is verified with the JWK set beside it. A second token uses the same key.
func TestDevelopmentToken(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	first, path, err := devtoken.New(dir, "ann", []string{"users.read", "status.write"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	keys := must(auth.NewKeys(auth.KeysOptions{Location: path, Logger: slog.New(slog.DiscardHandler)}))
	if err := keys.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	v := must(auth.NewVerifier(auth.VerifierOptions{
		Keys: keys, Issuer: devtoken.Issuer, Audience: devtoken.Audience,
	}))
	second, _, err := devtoken.New(dir, "ann", []string{"users.read", "status.write"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{first, second} {
		c, err := v.Verify(t.Context(), token, nil)
		if err != nil || c.Subject != "ann" || c.Permissions != auth.PermissionsOf(auth.UsersRead, auth.StatusWrite) {
			t.Errorf("Verify() = %+v, %v", c, err)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 {
		t.Fatalf("directory has %v, %v", files, err)
	}
	for _, file := range files {
		info := must(file.Info())
		if strings.HasSuffix(file.Name(), ".pem") && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", file.Name(), info.Mode().Perm())
		}
	}
	if strings.Contains(string(must(os.ReadFile(path))), `"d"`) {
		t.Error("JWK set contains the private key")
	}
}

func TestNewErrors(t *testing.T) {
	for name, err := range map[string]error{
		"no subject":         second(devtoken.New(t.TempDir(), "", nil, time.Hour)),
		"certificate's":      second(devtoken.New(t.TempDir(), "cert:ann", nil, time.Hour)),
		"unknown permission": second(devtoken.New(t.TempDir(), "ann", []string{"users.raed"}, time.Hour)),
		"no time":            second(devtoken.New(t.TempDir(), "ann", nil, 0)),
	} {
		if err == nil {
			t.Errorf("New(%s) = nil error, want error", name)
		}
	}
	dir := t.TempDir()
	if err := second(devtoken.New(dir, "ann", nil, time.Hour)); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "userd-development-key.pem")
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := second(devtoken.New(dir, "ann", nil, time.Hour)); err == nil {
		t.Error("key file readable by others: got nil error")
	}
	if err := os.WriteFile(key, []byte("nonsense"), 0o600); err != nil || os.Chmod(key, 0o600) != nil {
		t.Fatal(err)
	}
	if err := second(devtoken.New(dir, "ann", nil, time.Hour)); err == nil {
		t.Error("malformed key file: got nil error")
	}
}

func TestDevelopmentTokenKeepsOtherKeys(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "userd-development-jwks.json")
	if err := os.WriteFile(path, []byte(`{"keys": [{"kid": "other", "kty": "oct", "k": "AAAA"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time the key is in the set
		if err := second(devtoken.New(dir, "ann", nil, time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	body := string(must(os.ReadFile(path)))
	if strings.Count(body, `"kid"`) != 2 || !strings.Contains(body, `"other"`) {
		t.Errorf("JWK set = %s", body)
	}
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := second(devtoken.New(dir, "ann", nil, time.Hour)); err == nil {
		t.Error("malformed JWK set was overwritten")
	}
}

// Key and JWK set files owned by another user are rejected. Creating them needs root.
func TestDevelopmentKeyOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	for _, name := range []string{"userd-development-key.pem", "userd-development-jwks.json"} {
		dir := t.TempDir()
		if err := second(devtoken.New(dir, "ann", nil, time.Hour)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(dir, name), 12345, 12345); err != nil {
			t.Fatal(err)
		}
		if err := second(devtoken.New(dir, "ann", nil, time.Hour)); err == nil || !strings.Contains(err.Error(), "owned by another user") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func second(_, _ string, err error) error { return err }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
