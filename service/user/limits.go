package user

import "time"

// Limits of users. Those of single fields are enforced by the rules of the proto files, whose values they
// repeat for Field.MaxBytes; the others are enforced by the domain.
const (
	// MinUsername is the minimum length of a username, in characters.
	MinUsername = 3
	// MaxUsername is the maximum length of a username, in characters.
	MaxUsername = 64
	// MaxEmail is the maximum length of an e-mail address, in bytes.
	MaxEmail = 254
	// MaxEmailLocal is the maximum length of the local part, in bytes (RFC 5321, 4.5.3.1.1).
	MaxEmailLocal = 64
	// MaxTags is the maximum number of tags of a user.
	MaxTags = 64
	// MaxTag is the maximum length of a tag, in characters.
	MaxTag = 64
	// MaxMetadata is the maximum number of metadata entries of a user.
	MaxMetadata = 64
	// MaxMetadataKey is the maximum length of a metadata key, in characters.
	MaxMetadataKey = 64
	// MaxMetadataValue is the maximum length of a metadata value, in bytes.
	MaxMetadataValue = 1024
	// MaxDetails is the maximum total length of the keys and values of a log row's details,
	// in bytes.
	MaxDetails = 4096
	// MaxStatusSkew is the maximum by which a client's status time may be ahead of the server's
	// clock.
	MaxStatusSkew = time.Minute
	// DefaultRetention is the time from the deletion of a user to its purge.
	DefaultRetention = 30 * 24 * time.Hour
	// RequestIDLifetime is how long the result of an idempotent request is stored.
	RequestIDLifetime = 24 * time.Hour
	// MaxPage is the maximum page size.
	MaxPage = 1000
	// DefaultPage is the page size of a request without one.
	DefaultPage = 50
)
