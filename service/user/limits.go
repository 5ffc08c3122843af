package user

import "time"

// The limits of the service. Those on single fields stand in the proto too, where
// callers read them; here are the ones that the domain itself keeps.
const (
	// MinUsername and MaxUsername bound a username, in characters.
	MinUsername, MaxUsername = 3, 64
	// MaxEmail bounds an e-mail address, in bytes.
	MaxEmail = 254
	// MaxEmailLocal bounds the part before the @, in bytes (RFC 5321, 4.5.3.1.1).
	MaxEmailLocal = 64
	// MaxTags and MaxTag bound the labels: how many, and the characters of each.
	MaxTags, MaxTag = 64, 64
	// MaxMetadata bounds the number of metadata entries, MaxMetadataKey the
	// characters of a key, MaxMetadataValue the bytes of a value.
	MaxMetadata, MaxMetadataKey, MaxMetadataValue = 64, 64, 1024
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
