package service

import (
	"context"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/user"
)

const (
	// maxUserBytes is the size of the largest user that the rules allow, about.
	maxUserBytes = 104 << 10
	// leastResponse is what a response with a list gets at least.
	leastResponse = 128 << 10
	// responseCopies is how often what a handler reads is in memory: as it comes from the
	// store, as a message, and encoded.
	responseCopies = 3
)

// reserveResponse reserves memory for a response of want bytes before it is read from the
// store. It returns how many bytes the response may have, which are fewer where memory is
// short, so that lists get shorter before calls are refused. The reservation becomes that
// of the response when its size is known.
func reserveResponse(ctx context.Context, want int) (int, error) {
	memory := budget.FromContext(ctx)
	for size := want; ; size = max(size/2, leastResponse) {
		if memory.Grow(budget.Response, responseCopies*int64(size)) == nil {
			return size, nil
		}
		if size <= leastResponse {
			return 0, user.NewOverloadedError()
		}
	}
}
