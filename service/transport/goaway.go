package transport

import "encoding/binary"

// HTTP/2 error codes (RFC 9113, section 7) sent from here.
const (
	errEnhanceYourCalm    = 0xb
	errInadequateSecurity = 0xc
)

// goAway returns the frames that reject an HTTP/2 connection: SETTINGS, the required first frame of a server (RFC 9113,
// section 3.4), and GOAWAY for all streams.
func goAway(code uint32, text string) []byte {
	const settings, goAway = 0x4, 0x7
	p := []byte{0, 0, 0, settings, 0, 0, 0, 0, 0}
	p = append(p, 0, 0, byte(8+len(text)), goAway, 0, 0, 0, 0, 0)
	p = binary.BigEndian.AppendUint32(p, 0)
	p = binary.BigEndian.AppendUint32(p, code)
	return append(p, text...)
}
