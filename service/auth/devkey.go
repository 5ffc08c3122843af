package auth

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

// developmentKey reads the key, or makes it where there is none.
func developmentKey(path string) (ed25519.PrivateKey, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return makeKey(path)
	case err != nil:
		return nil, err
	case !ownFile(info):
		return nil, fmt.Errorf("%s belongs to somebody else, who knows the key: use a folder of your own", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s can be read by others (mode %o): make it 600, or remove it to get a new one",
			path, info.Mode().Perm())
	}
	text, err := os.ReadFile(path) //nolint:gosec // the developer names the folder
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s is not PEM: remove it to get a new one", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s is no Ed25519 key: remove it to get a new one", path)
	}
	return key, nil
}

func makeKey(path string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	// The file is nobody else's from the first moment on.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the developer names the folder
	if err != nil {
		return nil, err
	}
	err = pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
	return key, errors.Join(err, f.Close())
}

// writeJWKS writes the set with the key and those that are in it already, unless it is
// there. A server that reads it meanwhile sees all of it or nothing.
func writeJWKS(path string, key jose.JSONWebKey) error {
	set := struct {
		Keys []json.RawMessage `json:"keys"`
	}{}
	old, err := oldJWKS(path)
	if err != nil {
		return err
	}
	if old != nil && json.Unmarshal(old, &set) != nil {
		return fmt.Errorf("%s is no JWK set: remove it to get a new one", path)
	}
	for _, one := range set.Keys {
		var known jose.JSONWebKey
		if json.Unmarshal(one, &known) == nil && known.KeyID == key.KeyID {
			return nil // it is named by what it is
		}
	}
	added, err := json.Marshal(key)
	if err != nil {
		return err
	}
	set.Keys = append(set.Keys, added)
	body, err := json.MarshalIndent(set, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(path, body)
}

// oldJWKS reads the set that is there; nil: there is none.
func oldJWKS(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !ownFile(info):
		return nil, fmt.Errorf("%s belongs to somebody else, whose keys a server would take: use a folder of your own", path)
	}
	return os.ReadFile(path) //nolint:gosec // the developer names the folder
}

// replaceFile writes a file that everybody may read, as a whole.
func replaceFile(path string, body []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
