package devtoken

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

// loadKey reads the key, or creates it.
func loadKey(path string) (ed25519.PrivateKey, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return createKey(path)
	case err != nil:
		return nil, err
	case !ownFile(info):
		return nil, fmt.Errorf("%s is owned by another user: use your own directory", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s is readable by others (mode %o): set mode 600, or remove it to create a new key",
			path, info.Mode().Perm())
	}
	text, err := os.ReadFile(path) //nolint:gosec // the directory is configured
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s is not PEM: remove it to create a new key", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s is not an Ed25519 key: remove it to create a new key", path)
	}
	return key, nil
}

func createKey(path string) (ed25519.PrivateKey, error) {
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
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the directory is configured
	if err != nil {
		return nil, err
	}
	err = pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
	return key, errors.Join(err, f.Close())
}

// writeJWKS adds the key to the JWK set in the file, unless the set has it. The file is
// replaced atomically.
func writeJWKS(path string, key jose.JSONWebKey) error {
	set := struct {
		Keys []json.RawMessage `json:"keys"`
	}{}
	old, err := readJWKS(path)
	if err != nil {
		return err
	}
	if old != nil && json.Unmarshal(old, &set) != nil {
		return fmt.Errorf("%s is not a JWK set: remove it to create a new one", path)
	}
	for _, one := range set.Keys {
		var known jose.JSONWebKey
		if json.Unmarshal(one, &known) == nil && known.KeyID == key.KeyID {
			return nil // the id is the key's thumbprint
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

func readJWKS(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !ownFile(info):
		return nil, fmt.Errorf("%s is owned by another user: use your own directory", path)
	}
	return os.ReadFile(path) //nolint:gosec // the directory is configured
}

// replaceFile atomically writes a file that is readable by all users.
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
