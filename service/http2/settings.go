package http2

import "encoding/binary"

// Settings (section 6.5.2).
const (
	settingHeaderTableSize      = 0x1
	settingEnablePush           = 0x2
	settingMaxConcurrentStreams = 0x3
	settingInitialWindowSize    = 0x4
	settingMaxFrameSize         = 0x5
	settingMaxHeaderListSize    = 0x6

	settingLen = 6
	// maxEncoderTable bounds the table of the HPACK encoder, whatever the client permits.
	maxEncoderTable = 4 << 10
	// fieldOverhead is the size of a field beyond its name and value (section 6.5.2).
	fieldOverhead = 32
)

// appendSettings queues the settings of the server, and the window of the connection. c.mu is held.
func (c *conn) appendSettings() {
	s := c.srv
	settings := [][2]uint32{
		{settingMaxConcurrentStreams, uint32(s.maxStreams)},
		{settingInitialWindowSize, uint32(s.streamWindow)},
		{settingMaxFrameSize, s.maxFrame},
		{settingMaxHeaderListSize, uint32(s.maxHeaderList)},
	}
	out := appendFrameHeader(c.output(), settingLen*len(settings), frameSettings, 0, 0)
	for _, setting := range settings {
		out = binary.BigEndian.AppendUint16(out, uint16(setting[0]))
		out = binary.BigEndian.AppendUint32(out, setting[1])
	}
	c.out = out
	if more := s.connWindow - initialWindow; more > 0 {
		c.appendWindowUpdate(0, more)
		c.recvWindow += more
	}
}

// settings handles SETTINGS (section 6.5). c.mu is held.
func (c *conn) settings(h frameHeader, p []byte) error {
	switch {
	case h.stream != 0:
		return connError{errProtocol, "SETTINGS on a stream"}
	case h.has(flagAck):
		if len(p) != 0 {
			return connError{errFrameSize, "acknowledgment of SETTINGS with a payload"}
		}
		return nil
	case len(p)%settingLen != 0:
		return connError{errFrameSize, "length of SETTINGS is not a multiple of 6"}
	}
	for ; len(p) > 0; p = p[settingLen:] {
		if err := c.setting(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])); err != nil {
			return err
		}
	}
	c.out = appendFrameHeader(c.output(), 0, frameSettings, flagAck, 0)
	c.control += frameHeaderLen
	c.kick()
	return c.awaitControl()
}

// setting applies one setting. SETTINGS_MAX_HEADER_LIST_SIZE is advice, and is ignored: a response that was
// computed is sent.
func (c *conn) setting(id uint16, value uint32) error {
	switch id {
	case settingHeaderTableSize:
		c.encoder.SetMaxDynamicTableSize(min(value, maxEncoderTable))
	case settingEnablePush:
		if value > 1 {
			return connError{errProtocol, "SETTINGS_ENABLE_PUSH must be 0 or 1"}
		}
	case settingInitialWindowSize:
		if value > maxWindow {
			return connError{errFlowControl, "SETTINGS_INITIAL_WINDOW_SIZE exceeds its maximum"}
		}
		return c.setInitialWindow(int64(value))
	case settingMaxFrameSize:
		if value < minMaxFrame || value > maxMaxFrame {
			return connError{errProtocol, "SETTINGS_MAX_FRAME_SIZE out of range"}
		}
		c.peerMaxFrame = value
	}
	return nil
}
