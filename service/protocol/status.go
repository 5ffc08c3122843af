package protocol

import (
	"net/http"
	"strconv"
)

// grpcCodes is the number of codes of gRPC, including OK.
const grpcCodes = 17

// GRPCStatus returns the code of a gRPC error in the trailers, or 0. A response without body
// has its trailers in the header.
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
