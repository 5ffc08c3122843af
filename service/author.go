package service

import (
	"context"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/user"
)

func author(ctx context.Context, requestID string) user.Author {
	return user.Author{Actor: auth.FromContext(ctx).Subject, RequestID: requestID}
}
