package transport

import "encoding/binary"

// CloseReason says why the server closed a connection.
type CloseReason string

// Frame limits that a connection can exceed.
const (
	ClosePings         CloseReason = "pings"
	CloseSettings      CloseReason = "settings"
	CloseResets        CloseReason = "resets"
	CloseContinuations CloseReason = "continuations"
	CloseWindowUpdates CloseReason = "window_updates"
	CloseEmptyData     CloseReason = "empty_data"
	CloseLateData      CloseReason = "late_data"
	CloseOtherFrames   CloseReason = "other_frames"
	CloseHeaders       CloseReason = "headers" // of service/http2: a header block over twice the limit

	// Reasons that are not frame limits: no memory for the connection, an incomplete header
	// block, or the maximum age of connections.
	CloseMemory        CloseReason = "memory"
	CloseHeaderTimeout CloseReason = "header_timeout"
	CloseAge           CloseReason = "max_age"
)

// CloseReasons returns all reasons.
func CloseReasons() []CloseReason {
	return []CloseReason{
		ClosePings, CloseSettings, CloseResets, CloseContinuations, CloseWindowUpdates, CloseEmptyData, CloseLateData, CloseOtherFrames,
		CloseHeaders, CloseMemory, CloseHeaderTimeout, CloseAge,
	}
}

// HTTP/2 error codes (RFC 9113, section 7) sent from here.
const (
	errNone               = 0x0
	errEnhanceYourCalm    = 0xb
	errInadequateSecurity = 0xc
)

// goAwayFor returns the GOAWAY frame for a reason.
func goAwayFor(reason CloseReason, lastStream uint32) []byte {
	switch reason {
	case CloseMemory:
		return goAway(errEnhanceYourCalm, lastStream, "server overloaded")
	case CloseHeaderTimeout:
		return goAway(errEnhanceYourCalm, lastStream, "header timeout")
	case CloseAge:
		return goAway(errNone, lastStream, string(reason))
	default:
		return goAway(errEnhanceYourCalm, lastStream, "too_many_"+string(reason))
	}
}

// emptySettings returns a SETTINGS frame, the required first frame of a server (RFC 9113, section
// 3.4).
func emptySettings() []byte { return []byte{0, 0, 0, frameSettings, 0, 0, 0, 0, 0} }

// goAway returns a GOAWAY frame. Clients may repeat the requests of streams after lastStream.
func goAway(code, lastStream uint32, text string) []byte {
	frame := make([]byte, 0, frameHeaderLen+8+len(text))
	frame = append(frame, 0, 0, byte(8+len(text)), frameGoAway, 0, 0, 0, 0, 0)
	frame = binary.BigEndian.AppendUint32(frame, lastStream)
	frame = binary.BigEndian.AppendUint32(frame, code)
	return append(frame, text...)
}
