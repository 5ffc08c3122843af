package limits

import (
	"context"
	"log/slog"
)

// reservedFiles is the number of file descriptors reserved for the store, the listeners, the admin
// listener's connections, reloaded files, and connections that are being rejected.
const reservedFiles = 128

// connectionsWithin returns the connection limit: configured, lowered to the descriptors that
// openFiles, the limit of open files, leaves. 0 means no limit for configured, unknown for openFiles.
func connectionsWithin(openFiles uint64, configured int) int {
	if openFiles == 0 {
		return configured
	}
	available := max(openFiles/4, openFiles-min(openFiles, reservedFiles))
	if configured > 0 && uint64(configured) <= available {
		return configured
	}
	return int(min(available, 1<<31-1))
}

// maxConnections returns the connection limit, and logs if it is below --max-connections.
func (l *Limits) maxConnections(log *slog.Logger) int {
	openFiles, configured := openFilesLimit(), l.opts.Connections
	limit := connectionsWithin(openFiles, configured)
	if limit < configured {
		log.LogAttrs(context.Background(), slog.LevelWarn, "connection limit lowered: open file limit too low (ulimit -n)",
			slog.Int("configured", configured), slog.Int("limit", limit), slog.Uint64("open_files", openFiles))
	}
	return limit
}
