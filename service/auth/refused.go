package auth

import (
	"errors"
	"time"

	"github.com/yourorg/userservice/service/user"
)

// Cause is the reason for a rejection, as logged and counted. The values are fixed: none
// contains data of a caller.
type Cause string

// Causes of a rejection.
const (
	CauseMissing        Cause = "missing"         // no credentials
	CauseHeader         Cause = "header"          // Authorization is not a single bearer token
	CauseTokensDisabled Cause = "tokens_disabled" // a token, but only certificates are configured
	CauseOversize       Cause = "oversize"        // longer than MaxTokenBytes
	CauseMalformed      Cause = "malformed"       // not a signed JWT in compact form
	CauseType           Cause = "type"            // unsupported typ
	CauseAlgorithm      Cause = "algorithm"       // alg is none, symmetric or unsupported
	CauseEmbeddedKey    Cause = "embedded_key"    // header has jwk, jku, x5c or x5u
	CauseCritical       Cause = "critical"        // header has crit, b64 or zip
	CauseKeyID          Cause = "key_id"          // invalid kid, or none where it is required
	CauseUnknownKey     Cause = "unknown_key"     // no key with this kid and algorithm
	CauseNoKeys         Cause = "no_keys"         // the JWK set is missing or too old
	CauseSignature      Cause = "signature"       // wrong signature
	CauseClaims         Cause = "claims"          // a claim is missing or of the wrong type
	CauseIssuer         Cause = "issuer"          // wrong iss
	CauseAudience       Cause = "audience"        // wrong aud
	CauseExpired        Cause = "expired"         // expired
	CauseNotYetValid    Cause = "not_yet_valid"   // not valid yet
	CauseSubject        Cause = "subject"         // missing or invalid subject
	CauseBinding        Cause = "binding"         // bound to another certificate, or unsupported binding
	CauseUnverified     Cause = "unverified"      // certificate not verified
	CauseNoName         Cause = "no_name"         // certificate without a usable name
	CauseOther          Cause = "other"           // any other reason
)

// keysRetryAfter is the retry delay sent to clients while tokens cannot be verified.
const keysRetryAfter = 5 * time.Second

// texts are the messages sent to callers. They are plain ASCII without quotes, because they
// are also used in a header.
var texts = map[Cause]string{
	CauseMissing:        "credentials required",
	CauseHeader:         "Authorization header: must be a single bearer token",
	CauseTokensDisabled: "bearer tokens are not accepted",
	CauseOversize:       "token too long",
	CauseMalformed:      "invalid credentials",
	CauseType:           "token type not supported",
	CauseAlgorithm:      "signature algorithm not supported",
	CauseEmbeddedKey:    "token must not carry or reference a key",
	CauseCritical:       "token requires an unsupported extension",
	CauseKeyID:          "token signed with an unknown key",
	CauseUnknownKey:     "token signed with an unknown key",
	CauseNoKeys:         "tokens cannot be verified at present, retry later",
	CauseSignature:      "invalid token signature",
	CauseClaims:         "token claim missing or of the wrong type",
	CauseIssuer:         "wrong token issuer",
	CauseAudience:       "wrong token audience",
	CauseExpired:        "credentials expired",
	CauseNotYetValid:    "credentials not valid yet",
	CauseSubject:        "invalid token subject",
	CauseBinding:        "token bound to a certificate that was not presented",
	CauseUnverified:     "client certificate not verified",
	CauseNoName:         "client certificate has no usable name",
	CauseOther:          "invalid credentials",
}

func (c Cause) text() string { return texts[c] }

// Causes returns all causes.
func Causes() []string {
	var causes []string
	for cause := range texts {
		causes = append(causes, string(cause))
	}
	return causes
}

// RefusedError is returned when authentication fails. It wraps the *user.Error for the
// caller: CREDENTIALS_MISSING, CREDENTIALS_EXPIRED or CREDENTIALS_INVALID.
type RefusedError struct {
	Cause Cause
	// Detail is logged only and may be nil. It contains no credentials.
	Detail error
}

func newRefusedError(c Cause, detail error) *RefusedError {
	return &RefusedError{Cause: c, Detail: detail}
}

func asRefused(err error) *RefusedError {
	var refused *RefusedError
	if !errors.As(err, &refused) {
		return newRefusedError(CauseOther, err)
	}
	return refused
}

// Error returns the cause and the detail.
func (e *RefusedError) Error() string {
	if e.Detail != nil {
		return string(e.Cause) + ": " + e.Detail.Error()
	}
	return string(e.Cause)
}

// Unwrap returns the error for the caller.
func (e *RefusedError) Unwrap() error {
	told := &user.Error{Code: user.Unauthenticated, Reason: user.CredentialsInvalid, Message: e.Cause.text()}
	switch e.Cause {
	case CauseMissing:
		told.Reason = user.CredentialsMissing
	case CauseExpired:
		told.Reason = user.CredentialsExpired
	case CauseNoKeys:
		told.RetryAfter = keysRetryAfter
	default:
	}
	return told
}

// NewExpiredError returns the error of a stream whose credentials have expired.
func NewExpiredError() *user.Error {
	return &user.Error{
		Code: user.Unauthenticated, Reason: user.CredentialsExpired, Message: CauseExpired.text(),
	}
}

func newCredentialsMissingError() *user.Error {
	return &user.Error{
		Code: user.Unauthenticated, Reason: user.CredentialsMissing, Message: CauseMissing.text(),
	}
}
