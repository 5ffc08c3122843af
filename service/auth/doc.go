// Package auth says who is calling and what they may do.
//
// Who: a bearer token (a JWT, RFC 7519, used as RFC 6750 says) or a client
// certificate. It promises that nothing of a token is believed before its signature
// has been checked with a key that the operator named; that a key serves only the
// algorithms of its own kind; that nothing a token names is ever fetched; and that
// where it cannot be known who calls, the call is refused.
//
// Precedence: where a token comes along, the token alone decides who calls and what
// they may do. A certificate beside it authenticates the connection and nothing else,
// and a bad token is refused although the certificate is good: a caller who shows a
// token means to be its subject. Without a token the certificate decides. Subjects of
// certificates begin with "cert:", those of tokens must not, so that neither can
// pass for the other.
//
// What: one table, in policy.go, from procedures to permissions, with rows below the
// procedure for what a request asks. What is not in the table is refused. A second table
// there names the fields of a response that need a permission of their own.
//
// Middleware authenticates before any body is read; the interceptors that ask the
// table are in package intercept. The package knows nothing of sessions, passwords or
// how tokens come to be, but for those that a developer makes for himself.
package auth
