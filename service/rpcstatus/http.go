package rpcstatus

import (
	"net/http"

	"google.golang.org/genproto/googleapis/rpc/code"

	"github.com/yourorg/userservice/service/user"
)

// statusClientClosed is the HTTP status for a client that closed the request, as in nginx.
const statusClientClosed = 499

// httpStatuses are the HTTP statuses that google.rpc.Code specifies.
var httpStatuses = map[code.Code]int{ // never changed
	code.Code_OK:                  http.StatusOK,
	code.Code_CANCELLED:           statusClientClosed,
	code.Code_INVALID_ARGUMENT:    http.StatusBadRequest,
	code.Code_FAILED_PRECONDITION: http.StatusBadRequest,
	code.Code_OUT_OF_RANGE:        http.StatusBadRequest,
	code.Code_DEADLINE_EXCEEDED:   http.StatusGatewayTimeout,
	code.Code_NOT_FOUND:           http.StatusNotFound,
	code.Code_ALREADY_EXISTS:      http.StatusConflict,
	code.Code_ABORTED:             http.StatusConflict,
	code.Code_PERMISSION_DENIED:   http.StatusForbidden,
	code.Code_UNAUTHENTICATED:     http.StatusUnauthorized,
	code.Code_RESOURCE_EXHAUSTED:  http.StatusTooManyRequests,
	code.Code_UNIMPLEMENTED:       http.StatusNotImplemented,
	code.Code_UNAVAILABLE:         http.StatusServiceUnavailable,
}

// codes are the codes of HTTP statuses without a gRPC code.
var codes = map[int]code.Code{ // never changed
	http.StatusBadRequest: code.Code_INVALID_ARGUMENT, http.StatusUnauthorized: code.Code_UNAUTHENTICATED,
	http.StatusForbidden: code.Code_PERMISSION_DENIED, http.StatusNotFound: code.Code_NOT_FOUND,
	http.StatusMethodNotAllowed: code.Code_UNIMPLEMENTED, http.StatusNotAcceptable: code.Code_INVALID_ARGUMENT,
	http.StatusConflict: code.Code_ABORTED, http.StatusPreconditionFailed: code.Code_FAILED_PRECONDITION,
	http.StatusRequestEntityTooLarge: code.Code_RESOURCE_EXHAUSTED, http.StatusUnsupportedMediaType: code.Code_INVALID_ARGUMENT,
	http.StatusTooManyRequests: code.Code_RESOURCE_EXHAUSTED, http.StatusInternalServerError: code.Code_INTERNAL,
	http.StatusNotImplemented: code.Code_UNIMPLEMENTED, http.StatusServiceUnavailable: code.Code_UNAVAILABLE,
	http.StatusGatewayTimeout: code.Code_DEADLINE_EXCEEDED, http.StatusHTTPVersionNotSupported: code.Code_UNIMPLEMENTED,
}

// HTTPStatus returns the HTTP status of an error. MESSAGE_TOO_LARGE has 413.
func HTTPStatus(c user.Code, reason user.Reason) int {
	if reason == user.MessageTooLarge {
		return http.StatusRequestEntityTooLarge
	}
	if status, ok := httpStatuses[code.Code(c)]; ok {
		return status
	}
	return http.StatusInternalServerError
}

// CodeOf returns the code of an HTTP status without a gRPC code.
func CodeOf(httpStatus int) user.Code {
	if c, ok := codes[httpStatus]; ok {
		return user.Code(c)
	}
	if httpStatus < http.StatusBadRequest {
		return user.Code(code.Code_OK)
	}
	return user.Code(code.Code_UNKNOWN)
}
