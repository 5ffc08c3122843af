package service

import (
	"context"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/user"
)

const (
	// maxUserBytes is the approximate size of the largest valid user.
	maxUserBytes = 104 << 10
	// minResponse is the minimum reservation for a list response.
	minResponse = 128 << 10
	// responseCopies is the number of copies in memory: store result, message, encoded message.
	responseCopies = 3
)

// reserveResponse reserves memory for a response of want bytes before the store is read. It
// returns the size reserved. Under memory pressure the size is smaller, so lists get shorter
// before calls are rejected.
func reserveResponse(ctx context.Context, want int) (int, error) {
	memory := budget.FromContext(ctx)
	for size := want; ; size = max(size/2, minResponse) {
		if memory.Grow(budget.Response, responseCopies*int64(size)) == nil {
			return size, nil
		}
		if size <= minResponse {
			return 0, user.NewOverloadedError()
		}
	}
}
