package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

const (
	// fileMode is the mode of every file that the package creates.
	fileMode fs.FileMode = 0o600
	// modeOthers are the permissions of everybody but the owner and the group.
	modeOthers fs.FileMode = 0o007
)

// sidecars are the suffixes of the files that SQLite keeps beside a database.
var sidecars = [...]string{"-wal", "-shm", "-journal"}

// resolve returns the absolute path of the database file that path names, without
// symbolic links: SQLite's write-ahead log lies beside the file itself. The file may
// be missing, its folder may not.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	resolved, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return resolveMissing(path)
	}
	if err != nil {
		return "", err
	}
	for _, suffix := range append([]string{""}, sidecars[:]...) {
		info, err := os.Lstat(resolved + suffix)
		switch {
		case errors.Is(err, fs.ErrNotExist) && suffix != "":
		case err != nil:
			return "", err
		case info.IsDir() && suffix == "":
			return "", errors.New("this is a folder; name the database file in it")
		case !info.Mode().IsRegular():
			return "", fmt.Errorf("%s is not a regular file", resolved+suffix)
		}
	}
	return resolved, nil
}

func resolveMissing(path string) (string, error) {
	if target, err := os.Readlink(path); err == nil {
		return "", fmt.Errorf("symbolic link to %s, which does not exist", target)
	}
	folder, err := filepath.EvalSymlinks(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("the folder %s does not exist", filepath.Dir(path))
	}
	if err != nil {
		return "", fmt.Errorf("the folder of the store: %w", err)
	}
	return filepath.Join(folder, filepath.Base(path)), nil
}

// restrict takes the permissions of others from the files of a store. Releases before
// file modes were set created them with the umask alone. A group that was given access
// keeps it.
func restrict(path string, log *slog.Logger) {
	for _, suffix := range append([]string{""}, sidecars[:]...) {
		name := path + suffix
		info, err := os.Lstat(name)
		if err != nil || !info.Mode().IsRegular() || info.Mode()&modeOthers == 0 {
			continue
		}
		if err := os.Chmod(name, fileMode); err != nil {
			log.Warn("store file is accessible to other users", "path", name, "mode", info.Mode().String(), "error", err)
			continue
		}
		log.Warn("store file was accessible to other users, mode changed", "path", name,
			"mode", info.Mode().String(), "new_mode", fileMode.String())
	}
}
