package user

import "time"

// The limits of the service. Those on single fields stand in the proto too, where
// callers read them; here are the ones that the domain itself keeps.
const (
	// MinUsername is the least number of characters of a username.
	MinUsername = 3
	// MaxUsername is the greatest number of characters of a username.
	MaxUsername = 64
	// MaxEmail bounds an e-mail address, in bytes.
	MaxEmail = 254
	// MaxEmailLocal bounds the part before the @, in bytes (RFC 5321, 4.5.3.1.1).
	MaxEmailLocal = 64
	// MaxTags bounds the number of labels of a user.
	MaxTags = 64
	// MaxTag bounds a label, in characters.
	MaxTag = 64
	// MaxMetadata bounds the number of metadata entries of a user.
	MaxMetadata = 64
	// MaxMetadataKey bounds a metadata key, in characters.
	MaxMetadataKey = 64
	// MaxMetadataValue bounds a metadata value, in bytes.
	MaxMetadataValue = 1024
	// MaxDetails bounds the details of one log row: bytes of all keys and values.
	MaxDetails = 4096
	// MaxStatusSkew is how far a caller's status time may lie ahead of the server's.
	MaxStatusSkew = time.Minute
	// DefaultRetention is how long a deleted user is kept before it is purged.
	DefaultRetention = 30 * 24 * time.Hour
	// RequestIDLifetime is how long a request id is remembered.
	RequestIDLifetime = 24 * time.Hour
	// MaxPage bounds the rows of one page.
	MaxPage = 1000
	// DefaultPage is the size of a page whose caller names none.
	DefaultPage = 50
)
