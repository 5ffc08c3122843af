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
	// modeOthers are the permissions of users other than owner and group.
	modeOthers fs.FileMode = 0o007
)

// sidecars are the suffixes of the files that SQLite creates beside a database.
var sidecars = [...]string{"-wal", "-shm", "-journal"}

// resolve returns the absolute path of a database file without symbolic links: the
// write-ahead log is beside the target. The file may be missing, its directory must exist.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	resolved, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		resolved, err = resolveMissing(path)
	}
	if err != nil {
		return "", err
	}
	for _, suffix := range append([]string{""}, sidecars[:]...) {
		info, err := os.Lstat(resolved + suffix)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return "", err
		case info.IsDir() && suffix == "":
			return "", errors.New("is a directory; give the path of a file in it")
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
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("directory %s does not exist", filepath.Dir(path))
	}
	if err != nil {
		return "", fmt.Errorf("directory of the store: %w", err)
	}
	return filepath.Join(dir, filepath.Base(path)), nil
}

// restrict sets the mode of store files that other users can access to fileMode. Earlier
// releases created them with the umask alone. Files accessible to the group only are not
// changed.
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
