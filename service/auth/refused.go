package auth

import (
	"errors"
	"time"

	"github.com/yourorg/userservice/service/user"
)

// Cause is why credentials were refused, in one word. It is for logs and metrics: the
// words are few and none comes from a caller.
type Cause string

// The causes.
const (
	CauseMissing     Cause = "missing"       // no credentials came along
	CauseHeader      Cause = "header"        // Authorization is not one bearer token
	CauseNotTaken    Cause = "not_taken"     // a token, where only certificates are configured
	CauseOversize    Cause = "oversize"      // longer than MaxTokenBytes
	CauseMalformed   Cause = "malformed"     // not a signed JWT in compact form
	CauseType        Cause = "type"          // typ names another kind of token
	CauseAlgorithm   Cause = "algorithm"     // none, a symmetric one, or one that is not taken
	CauseEmbeddedKey Cause = "embedded_key"  // jwk, jku, x5c or x5u
	CauseCritical    Cause = "critical"      // crit, or an extension that would need it
	CauseKeyID       Cause = "key_id"        // a kid that cannot be one, or none where one is needed
	CauseUnknownKey  Cause = "unknown_key"   // no key of that name for that algorithm
	CauseNoKeys      Cause = "no_keys"       // the keys could not be had for too long
	CauseSignature   Cause = "signature"     // it does not match
	CauseClaims      Cause = "claims"        // a claim is missing or of the wrong form
	CauseIssuer      Cause = "issuer"        // another issuer's token
	CauseAudience    Cause = "audience"      // a token for another service
	CauseExpired     Cause = "expired"       // too late
	CauseNotYetValid Cause = "not_yet_valid" // too early
	CauseSubject     Cause = "subject"       // none, or one that cannot be a caller's name
	CauseBinding     Cause = "binding"       // bound to another certificate, or in an unknown way
	CauseUnverified  Cause = "unverified"    // a certificate that was not verified
	CauseNameless    Cause = "nameless"      // a certificate without a usable name
	CauseOther       Cause = "other"         // none of these
)

// keysRetry is when to come back while keys cannot be had.
const keysRetry = 5 * time.Second

// texts are what callers are told, in plain ASCII without quotes, since it stands in a
// header too. What is not here is told in general terms.
var texts = map[Cause]string{
	CauseMissing:     "credentials are required",
	CauseHeader:      "the Authorization header must be one bearer token",
	CauseNotTaken:    "tokens are not taken here",
	CauseOversize:    "the token is too long",
	CauseType:        "the token is of a type that is not taken",
	CauseAlgorithm:   "the token is signed with an algorithm that is not taken",
	CauseEmbeddedKey: "the token brings or names a key of its own",
	CauseCritical:    "the token demands an extension that is not known",
	CauseKeyID:       "the token is not signed with a known key",
	CauseUnknownKey:  "the token is not signed with a known key",
	CauseNoKeys:      "tokens cannot be checked at present",
	CauseSignature:   "the signature of the token does not match",
	CauseClaims:      "a claim of the token is missing or of the wrong form",
	CauseIssuer:      "the token is from another issuer",
	CauseAudience:    "the token is for another audience",
	CauseExpired:     "the credentials have expired",
	CauseNotYetValid: "the credentials are not valid yet",
	CauseSubject:     "the token has no usable subject",
	CauseBinding:     "the token is bound to something that did not come along",
	CauseUnverified:  "the certificate was not verified",
	CauseNameless:    "the certificate has no usable name",
}

func (c Cause) text() string {
	if text, ok := texts[c]; ok {
		return text
	}
	return "the credentials are not valid"
}

// RefusedError says that credentials were refused. It wraps the *user.Error for the
// caller: CREDENTIALS_MISSING, CREDENTIALS_EXPIRED or CREDENTIALS_INVALID.
type RefusedError struct {
	Cause Cause
	// Detail is for the log alone; it may be nil. It holds nothing of the credentials.
	Detail error
}

func refuse(c Cause, detail error) *RefusedError { return &RefusedError{Cause: c, Detail: detail} }

// asRefused makes a refusal of any error: where it cannot be known who calls, the call is
// refused.
func asRefused(err error) *RefusedError {
	var refused *RefusedError
	if !errors.As(err, &refused) {
		return refuse(CauseOther, err)
	}
	return refused
}

// Error gives cause and detail.
func (e *RefusedError) Error() string {
	if e.Detail != nil {
		return string(e.Cause) + ": " + e.Detail.Error()
	}
	return string(e.Cause)
}

// Unwrap gives what the caller is told.
func (e *RefusedError) Unwrap() error {
	told := &user.Error{Code: user.Unauthenticated, Reason: user.CredentialsInvalid, Message: e.Cause.text()}
	switch e.Cause {
	case CauseMissing:
		told.Reason = user.CredentialsMissing
	case CauseExpired:
		told.Reason = user.CredentialsExpired
	case CauseNoKeys:
		told.RetryAfter = keysRetry
	default:
	}
	return told
}

// NewExpiredError is the error that ends a stream whose credentials have expired.
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
