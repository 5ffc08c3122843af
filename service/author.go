package service

import (
	"context"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/user"
)

// author returns the author of a change for the authenticated caller.
func author(ctx context.Context, requestID string) user.Author {
	return user.Author{Actor: auth.FromContext(ctx).Subject, RequestID: requestID}
}
