package telemetry

import (
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// protocol is what a request speaks, as far as its header tells.
type protocol int

const (
	protocolOther protocol = iota
	protocolGRPC
	protocolGRPCWeb
	protocolConnect
	protocolREST

	protocols
)

// Package connect, whose names are in the lines of calls, has no underscore in one.
var (
	protocolNames = [protocols]string{"other", "grpc", "grpc_web", "connect", "rest"}
	lineNames     = [protocols]string{"other", "grpc", "grpcweb", "connect", "rest"}
)

// Codes of answers: those of HTTP as their numbers, those of gRPC, which answers
// failures too with 200, as grpc_1 to grpc_16.
const (
	firstStatus = 100
	endStatus   = 600
	grpcCodes   = 17 // of success and of the sixteen failures
	codeSlots   = endStatus - firstStatus + grpcCodes + 1
	otherSlot   = codeSlots - 1
)

// httpCounters count by protocol and code. A series is made when its code first
// occurs; there cannot be more than the table has room for.
type httpCounters struct {
	vec   *prometheus.CounterVec
	slots *[protocols][codeSlots]atomic.Pointer[prometheus.Counter]
}

func (m *Metrics) httpCounters(name, help string) httpCounters {
	c := httpCounters{
		vec:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"protocol", "code"}),
		slots: new([protocols][codeSlots]atomic.Pointer[prometheus.Counter]),
	}
	m.registry.MustRegister(c.vec)
	for p := range protocols {
		c.of(p, http.StatusOK-firstStatus)
	}
	return c
}

func (c httpCounters) of(p protocol, slot int) prometheus.Counter {
	place := &c.slots[p][slot]
	if made := place.Load(); made != nil {
		return *made
	}
	made := c.vec.WithLabelValues(protocolNames[p], slotName(slot))
	place.Store(&made)
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

// HTTPDone counts a request once its handler has returned: the status of the answer,
// its header with what was put there as trailers, and whether the request became a
// call, that is, whether an interceptor saw it, or was not meant to. Those that did
// not are counted a second time by themselves, since no metric of RPCs has them.
//
// A failure over gRPC has the status 200, so its code is taken from the trailers.
// Over gRPC-Web and streaming Connect a failure that comes after the first message is
// in the body and cannot be seen here; interceptors see it.
func (m *Metrics) HTTPDone(r *http.Request, status int, header http.Header, called bool) {
	p, slot := protocolOf(r), slotOf(status, header)
	m.requests.of(p, slot).Inc()
	if !called {
		m.unhandled.of(p, slot).Inc()
	}
}

// Protocol is what a request speaks, as far as its header tells, by the names that
// the lines of calls have.
func Protocol(r *http.Request) string { return lineNames[protocolOf(r)] }

// protocolOf follows the rules by which the handlers themselves choose.
func protocolOf(r *http.Request) protocol {
	content := r.Header.Get("Content-Type")
	switch {
	case strings.HasPrefix(content, "application/grpc-web"):
		return protocolGRPCWeb
	case strings.HasPrefix(content, "application/grpc"):
		return protocolGRPC
	case strings.HasPrefix(r.URL.Path, "/api/"):
		return protocolREST
	case strings.HasPrefix(content, "application/connect+"),
		r.Method == http.MethodPost && strings.HasPrefix(content, "application/json"),
		r.Method == http.MethodPost && strings.HasPrefix(content, "application/proto"),
		r.Method == http.MethodGet && strings.Contains(r.URL.RawQuery, "encoding="):
		return protocolConnect
	}
	return protocolOther
}

func slotOf(status int, header http.Header) int {
	if code := GRPCStatus(header); code > 0 {
		return endStatus - firstStatus + code
	}
	if status < firstStatus || status >= endStatus {
		return otherSlot
	}
	return status - firstStatus
}

// GRPCStatus returns the code of a failure that the trailers in an answer's header
// carry, 0 for none. They stand under either name: an answer that is trailers alone has
// them in its header.
func GRPCStatus(header http.Header) int {
	for _, name := range [...]string{http.TrailerPrefix + "Grpc-Status", "Grpc-Status"} {
		values := header[name]
		if len(values) == 0 {
			continue
		}
		if code, err := strconv.Atoi(values[0]); err == nil && code > 0 && code < grpcCodes {
			return code
		}
	}
	return 0
}
