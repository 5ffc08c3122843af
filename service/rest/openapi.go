package rest

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"github.com/yourorg/userservice/gen"
)

// documentHandler serves the OpenAPI document.
func documentHandler() http.Handler {
	document := gen.OpenAPI()
	sum := sha256.Sum256([]byte(document))
	etag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			refuse(w, http.StatusMethodNotAllowed, "method not allowed, use GET, HEAD")
			return
		}
		header := w.Header()
		header.Set("Content-Type", "application/yaml")
		header.Set("Etag", etag)
		header.Set("Cache-Control", "no-cache")
		header.Set("X-Content-Type-Options", "nosniff")
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(document))
	})
}
