package rest

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"strconv"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/rpcstatus"
	"github.com/yourorg/userservice/service/user"
)

type answerKey struct{}

// answer is the way back of a unary call. It holds an error back until it is whole,
// to give it the HTTP code and the headers that belong to it, and lets everything
// else pass.
type answer struct {
	http.ResponseWriter

	log         *slog.Logger
	compressors *compressors
	request     *http.Request
	conditional bool // an etag mismatch is a failed precondition of HTTP
	refused     func(*status.Status)

	started bool
	status  int           // of an error
	failure *bytes.Buffer // body of an error; nil: there is none
	packed  *gzip.Writer  // nil: the answer is not compressed
}

// Flush does nothing: an answer is whole when the call returns.
func (a *answer) Flush() {}

// Unwrap lets http.ResponseController find the writer below.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader decides what becomes of the answer.
func (a *answer) WriteHeader(status int) {
	if a.started || status < http.StatusOK {
		return
	}
	a.started = true
	header := a.Header()
	header.Del("Accept-Encoding")
	if status >= http.StatusBadRequest {
		a.status, a.failure = status, &bytes.Buffer{}
		return
	}
	header.Set("X-Content-Type-Options", "nosniff")
	if header.Get(EtagHeader) == "" {
		if header.Get("Cache-Control") == "" {
			header.Set("Cache-Control", "no-store")
		}
		a.compress(header)
	}
	a.ResponseWriter.WriteHeader(status)
}

// compress packs an answer where it is worth it. One with an ETag is left as it is,
// so that the tag stays the user's own.
func (a *answer) compress(header http.Header) {
	header.Add("Vary", "Accept-Encoding")
	length, err := strconv.Atoi(header.Get("Content-Length"))
	if err != nil || length < compressMinBytes || a.request.Method == http.MethodHead || !takesGzip(a.request) {
		return
	}
	header.Del("Content-Length")
	header.Set("Content-Encoding", "gzip")
	a.packed = a.compressors.get(a.ResponseWriter)
}

// Write takes a part of the answer's body.
func (a *answer) Write(data []byte) (int, error) {
	if !a.started {
		a.WriteHeader(http.StatusOK)
	}
	switch {
	case a.failure != nil:
		return a.failure.Write(data)
	case a.packed != nil:
		return a.packed.Write(data)
	default:
		return a.ResponseWriter.Write(data)
	}
}

// finish completes the answer once the call has returned.
func (a *answer) finish(ctx context.Context) {
	switch {
	case a.failure != nil:
		a.fail(ctx)
	case a.packed != nil:
		_ = a.packed.Close() // a caller who has gone cannot be told
		a.compressors.put(a.packed)
	}
}

func (a *answer) fail(ctx context.Context) {
	header := a.Header()
	for _, name := range []string{"Content-Encoding", EtagHeader} {
		header.Del(name)
	}
	s := &status.Status{}
	if err := protojson.Unmarshal(a.failure.Bytes(), s); err != nil {
		// A refusal of the transcoder, which is plain text.
		a.log.LogAttrs(ctx, slog.LevelWarn, "a REST call was refused by the transcoder",
			slog.Int("status", a.status), slog.String("text", echo(a.failure.String())))
		if a.status < http.StatusInternalServerError {
			refuse(a.ResponseWriter, a.status, http.StatusText(a.status))
			return
		}
		s.Code = int32(code.Code_INTERNAL)
	}
	if !a.accounted(s) {
		incident := rand.Text()
		a.log.LogAttrs(ctx, slog.LevelError, "a REST call failed outside its handler",
			slog.String("incident", incident), slog.String("error", s.GetMessage()))
		writeStatus(a.ResponseWriter, http.StatusInternalServerError, rpcstatus.Internal(incident))
		return
	}
	if !intercept.IsSeen(ctx) {
		a.refused(s) // by the transcoder, which saw what is wrong before there was a call
	}
	httpStatus := httpCode(s.GetCode())
	if a.conditional && reason(s) == user.EtagMismatch {
		httpStatus = http.StatusPreconditionFailed
	}
	writeStatusBody(a.ResponseWriter, httpStatus, s, a.failure.Bytes())
}

// accounted reports whether an error may be shown: one that looks like a fault of the
// server and does not say why was made on the way, and its text was not meant for
// callers.
func (a *answer) accounted(s *status.Status) bool {
	switch code.Code(s.GetCode()) {
	case code.Code_INTERNAL, code.Code_UNKNOWN, code.Code_DATA_LOSS, code.Code_OK:
		return reason(s) != ""
	default:
		return true
	}
}
