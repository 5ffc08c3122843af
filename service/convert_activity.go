package service

import (
	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/user"
)

// progressRow says that nothing is missing up to the position.
func progressRow(position int64) *userv1.UserActivity {
	return &userv1.UserActivity{ActivityId: position}
}

// statusUpdate converts a user's current status.
func (s *Service) statusUpdate(current user.CurrentStatus) *userv1.UserStatusUpdate {
	return &userv1.UserStatusUpdate{
		UserId:     current.UserID,
		Status:     userv1.UserStatus(current.Status),
		Timestamp:  timeToProto(current.Time),
		ActivityId: current.Position,
		Epoch:      s.feed.Head().Epoch,
	}
}

// statusChange gives a change as a follower is told of it: a user that is gone
// comes as an error item.
func (s *Service) statusChange(change *feed.StatusChange) *userv1.UserStatusUpdate {
	if gone := change.Gone(); gone != nil {
		return &userv1.UserStatusUpdate{
			UserId: change.UserID, ActivityId: change.Position,
			Epoch: s.feed.Head().Epoch, Error: s.itemStatus(gone),
		}
	}
	update := s.statusUpdate(change.Current)
	update.ActivityId = change.Position
	return update
}
