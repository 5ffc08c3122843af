// Package auth authenticates callers and authorizes their calls.
//
// Authentication: a caller presents a bearer token (a JWT, RFC 7519, sent as in RFC 6750)
// or a TLS client certificate. A token's claims are used only after its signature has been
// verified with a key from the configured JWK set. A key is used only with the algorithms
// of its own type. URLs in a token are never fetched. A request whose caller cannot be
// established is rejected.
//
// Precedence: if a request carries a token, the token alone determines the caller and its
// permissions. A client certificate then authenticates the connection only, and a bad
// token is rejected even with a good certificate. Without a token the certificate is
// used. Subjects of certificates start with "cert:" and subjects of tokens must not, so
// neither can impersonate the other.
//
// Authorization: the tables in policy.go map procedures, and fields of their requests, to
// permissions. A procedure that is not in the table is denied. A second table lists the
// response fields that need a permission of their own.
//
// Middleware authenticates before the request body is read. The interceptors of package
// intercept authorize. Issuing tokens is out of scope, except for development tokens.
package auth
