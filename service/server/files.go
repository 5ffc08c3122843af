package server

import (
	"context"
	"log/slog"
)

// filesKept is how many files are kept for what is no caller's connection: those of the
// store, the ports, operators who ask, keys that are read again, and peers who are being
// told that there are too many.
const filesKept = 128

// connectionsWithin gives how many connections there may be, of as many as are asked
// for, where the process may have so many files open. Beyond that nothing would work: no
// connection could be accepted, not even an operator's, and the store could open no
// file. 0 stands for no limit, of the files for one that is not known.
func connectionsWithin(files uint64, asked int) int {
	if files == 0 {
		return asked
	}
	room := max(files/4, files-min(files, filesKept))
	if asked > 0 && uint64(asked) <= room {
		return asked
	}
	return int(min(room, 1<<31-1))
}

// maxConnections is how many connections the server takes. It says so where that is
// fewer than the configuration asks for.
func (l *limits) maxConnections(log *slog.Logger) int {
	files, asked := openFiles(), l.cfg.MaxConnections
	most := connectionsWithin(files, asked)
	if most < asked {
		log.LogAttrs(context.Background(), slog.LevelWarn, "fewer connections than --max-connections are taken: the limit of open files is too low (ulimit -n)",
			slog.Int("asked", asked), slog.Int("taken", most), slog.Uint64("files", files))
	}
	return most
}
