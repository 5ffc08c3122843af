package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/singleflight"
)

// Token is a bearer token.
type Token struct {
	Value   string
	Expires time.Time // zero: it does not expire
}

// TokenSource returns a new token. The client calls it before the token expires, and when the server rejects the token;
// never twice at the same time.
type TokenSource func(ctx context.Context) (Token, error)

// StaticToken is a source of one token.
func StaticToken(value string) TokenSource {
	return func(context.Context) (Token, error) { return Token{Value: value}, nil }
}

// TokenFile is a source that reads the token from a file, again each minute, such as a projected token of Kubernetes.
func TokenFile(path string) TokenSource {
	return func(context.Context) (Token, error) {
		text, err := os.ReadFile(path) //nolint:gosec // the caller chooses the file
		if err != nil {
			return Token{}, err
		}
		value := strings.TrimSpace(string(text))
		if value == "" {
			return Token{}, fmt.Errorf("%s: empty token", path)
		}
		return Token{Value: value, Expires: time.Now().Add(time.Minute + tokenMargin)}, nil
	}
}

const (
	tokenMargin  = 10 * time.Second // a token is renewed so long before it expires
	tokenTimeout = 10 * time.Second // of a call of the source
)

// tokenCache is an interceptor that sends the current token.
type tokenCache struct {
	source TokenSource
	flight singleflight.Group

	mu    sync.RWMutex
	token Token
}

func newTokenCache(source TokenSource) *tokenCache { return &tokenCache{source: source} }

// discard makes the next call get a new token. It reports false if no token is used.
func (t *tokenCache) discard() bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.token = Token{}
	return true
}

// header returns the value of the header Authorization.
func (t *tokenCache) header(ctx context.Context) (string, error) {
	t.mu.RLock()
	token := t.token
	t.mu.RUnlock()
	if token.Value != "" && (token.Expires.IsZero() || time.Until(token.Expires) > tokenMargin) {
		return "Bearer " + token.Value, nil
	}
	select {
	case got := <-t.flight.DoChan("", t.renew):
		if got.Err != nil {
			return "", connect.NewError(connect.CodeUnauthenticated, fmt.Errorf("get token: %w", got.Err))
		}
		value, _ := got.Val.(string)
		return "Bearer " + value, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// renew calls the source. It has its own context, because several calls wait for it.
func (t *tokenCache) renew() (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), tokenTimeout)
	defer cancel()
	token, err := t.source(ctx)
	if err == nil && token.Value == "" {
		err = errors.New("empty token")
	}
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.token = token
	t.mu.Unlock()
	return token.Value, nil
}

// WrapUnary sets the token of a call.
func (t *tokenCache) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		value, err := t.header(ctx)
		if err != nil {
			return nil, err
		}
		request.Header().Set("Authorization", value)
		return next(ctx, request)
	}
}

// WrapStreamingClient sets the token of a stream.
func (t *tokenCache) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		value, err := t.header(ctx)
		if err != nil {
			return &failedConn{StreamingClientConn: conn, err: err}
		}
		conn.RequestHeader().Set("Authorization", value)
		return conn
	}
}

// WrapStreamingHandler is not used by clients.
func (t *tokenCache) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// failedConn is a stream that could not be started.
type failedConn struct {
	connect.StreamingClientConn

	err error
}

// Send fails.
func (f *failedConn) Send(any) error { return f.err }

// Receive fails.
func (f *failedConn) Receive(any) error { return f.err }
