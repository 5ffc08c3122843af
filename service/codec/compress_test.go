package codec

import (
	"bytes"
	"testing"
)

// Append keeps what dst has, of any capacity.
func TestAppendKeepsPrefix(t *testing.T) {
	t.Parallel()
	for _, capacity := range []int{4, 4 * maxKeptBuffer} {
		packed := NewCompressors().Append(append(make([]byte, 0, capacity), "head"...), []byte("data"))
		if !bytes.HasPrefix(packed, []byte("head\x1f\x8b")) {
			t.Errorf("Append to %d bytes of capacity %d = %x, want them before gzip data", 4, capacity, packed[:min(len(packed), 8)])
		}
	}
}
