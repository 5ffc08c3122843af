package telemetry

import (
	"net/http"
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/yourorg/userservice/service/protocol"
)

// protocolNames are the values of the label protocol.
var protocolNames = [protocol.Count]string{"other", "grpc", "grpc_web", "connect", "connect", "rest"}

// Indexes of codes: HTTP statuses 100 to 599, then gRPC codes. A gRPC error has HTTP status
// 200 and is counted as grpc_1 to grpc_16.
const (
	firstStatus = 100
	endStatus   = 600
	grpcCodes   = 17 // including OK
	codeSlots   = endStatus - firstStatus + grpcCodes + 1
	otherSlot   = codeSlots - 1
)

// httpCounters counts requests by protocol and code. A series is created on first use; the
// array bounds their number.
type httpCounters struct {
	vec   *prometheus.CounterVec
	slots *[protocol.Count][codeSlots]atomic.Pointer[prometheus.Counter]
}

func (m *Metrics) httpCounters(name, help string) httpCounters {
	c := httpCounters{
		vec:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"protocol", "code"}),
		slots: new([protocol.Count][codeSlots]atomic.Pointer[prometheus.Counter]),
	}
	m.registry.MustRegister(c.vec)
	for p := range protocol.Count {
		c.of(p, http.StatusOK-firstStatus)
	}
	return c
}

func (c httpCounters) of(p protocol.Protocol, slot int) prometheus.Counter {
	counter := &c.slots[p][slot]
	if made := counter.Load(); made != nil {
		return *made
	}
	made := c.vec.WithLabelValues(protocolNames[p], slotName(slot))
	counter.Store(&made)
	return made
}

func slotName(slot int) string {
	switch {
	case slot == otherSlot:
		return "other"
	case slot >= endStatus-firstStatus:
		return "grpc_" + strconv.Itoa(slot-(endStatus-firstStatus))
	}
	return strconv.Itoa(slot + firstStatus)
}

// HTTPDone counts a request after its handler has returned. header is the response header with
// trailers. called is false if the request should have become an RPC and did not; such
// requests are also counted in userd_http_unhandled_total, because no RPC metric has them.
//
// The code of a gRPC error is read from the trailers. An error after the first message of a
// gRPC-Web or Connect stream is in the body, and is only counted by the interceptors.
func (m *Metrics) HTTPDone(r *http.Request, status int, header http.Header, called bool) {
	p, slot := protocol.Of(r), slotOf(status, header)
	m.requests.of(p, slot).Inc()
	if !called {
		m.unhandled.of(p, slot).Inc()
	}
}

func slotOf(status int, header http.Header) int {
	if code := protocol.GRPCStatus(header); code > 0 {
		return endStatus - firstStatus + code
	}
	if status < firstStatus || status >= endStatus {
		return otherSlot
	}
	return status - firstStatus
}
