package service

import (
	"google.golang.org/genproto/googleapis/rpc/status"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/batch"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/user"
)

// progressRow returns a row that reports completeness up to the position.
func progressRow(position int64) *userv1.UserActivity {
	return &userv1.UserActivity{ActivityId: position}
}

func (s *Service) statusUpdate(current user.CurrentStatus) *userv1.UserStatusUpdate {
	return &userv1.UserStatusUpdate{
		UserId:     current.UserID,
		Status:     userv1.UserStatus(current.Status),
		Timestamp:  timeToProto(current.Time),
		ActivityId: current.Position,
		Epoch:      s.feed.Head().Epoch,
	}
}

// statusChange converts a change for subscribers. A deleted or purged user is an error item.
func (s *Service) statusChange(change *feed.StatusChange) *userv1.UserStatusUpdate {
	if err := change.Err(); err != nil {
		update := s.statusFailure(change.UserID, err)
		update.ActivityId = change.Position
		return update
	}
	update := s.statusUpdate(change.Current)
	update.ActivityId = change.Position
	return update
}

// statusFailure converts the error of an item of a status stream. The details are in
// ItemFailure and not in Status, because JSON clients could not decode them there.
func (s *Service) statusFailure(userID int64, err error) *userv1.UserStatusUpdate {
	failure := batch.NewFailure(s.log, 0, userID, err)
	return &userv1.UserStatusUpdate{
		UserId: userID, Epoch: s.feed.Head().Epoch, Failure: failure,
		Error: &status.Status{Code: int32(failure.GetCode()), Message: failure.GetMessage()},
	}
}

// statusProgress returns the message of a status stream that nothing is missing up to the
// position.
func (s *Service) statusProgress(position int64) *userv1.UserStatusUpdate {
	return &userv1.UserStatusUpdate{ActivityId: position, Epoch: s.feed.Head().Epoch, Progress: true}
}
