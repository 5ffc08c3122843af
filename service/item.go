package service

import (
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/user"
)

const (
	// maxListed bounds the failures that the answer to a stream lists.
	maxListed = 1000
	// shortItemBytes is room for an item that is told of in its short form.
	shortItemBytes = 256
)

// itemFailure says why an item failed. userID is the user that it named, 0 for none.
func (s *Service) itemFailure(index int, userID int64, err error) *userv1.ItemFailure {
	st := s.itemStatus(err)
	f := &userv1.ItemFailure{
		Index: int64(index), UserId: userID, Code: code.Code(st.GetCode()), Message: st.GetMessage(),
	}
	for _, packed := range st.GetDetails() {
		detail, err := packed.UnmarshalNew()
		if err != nil {
			continue // a detail that is not known here is not the item's to tell
		}
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			f.Reason = userv1.ErrorReason(userv1.ErrorReason_value[detail.GetReason()])
			f.Metadata = detail.GetMetadata()
		case *errdetails.BadRequest:
			f.FieldViolations = detail.GetFieldViolations()
		}
	}
	return f
}

// itemText is a failure in one line.
func itemText(f *userv1.ItemFailure) string {
	return "item " + strconv.FormatInt(f.GetIndex(), 10) + ": " + f.GetMessage()
}

// shorten leaves of a failure what a program needs to know of it.
func shorten(f *userv1.ItemFailure) {
	f.Message, _, _ = strings.Cut(f.GetMessage(), ": ")
	f.FieldViolations, f.Metadata = nil, nil
}

// answerRoom is by how many bytes an answer may still grow beyond the short form of
// its items. One that has run out tells of the items left in that form, so that an
// answer always reaches its caller.
type answerRoom int

func (s *Service) answerRoom(items, itemBytes int) answerRoom {
	return answerRoom(s.opts.MaxMessageBytes - answerEnvelope - items*itemBytes)
}

func (r *answerRoom) take(bytes int) bool {
	if int(*r) < bytes {
		return false
	}
	*r -= answerRoom(bytes)
	return true
}

// userResult says what became of one item of a unary batch.
func (s *Service) userResult(index int, userID int64, result *user.Result, room *answerRoom) *userv1.UserResult {
	out := &userv1.UserResult{Outcome: outcomeToProto(result.Outcome)}
	if result.Err != nil {
		out.Outcome = userv1.ItemOutcome_ITEM_OUTCOME_FAILED
		out.Failure = s.itemFailure(index, userID, result.Err)
		if !room.take(proto.Size(out.GetFailure())) {
			shorten(out.GetFailure())
		}
		return out
	}
	out.User = resultToProto(result)
	if full := out.GetUser(); !room.take(proto.Size(full)) {
		out.User = &userv1.User{
			UserId: full.GetUserId(), Version: full.GetVersion(), Etag: full.GetEtag(), UpdatedAt: full.GetUpdatedAt(),
		}
	}
	return out
}

// failureList gathers the failures of a stream's items: the first maxListed of
// them; the count goes on.
type failureList struct {
	count  int64
	listed []*userv1.ItemFailure
	texts  []string
}

// full reports whether further failures are counted only.
func (l *failureList) full() bool { return len(l.listed) >= maxListed }

func (l *failureList) add(f *userv1.ItemFailure, withText bool, room *answerRoom) {
	size := embeddedSize(f)
	if withText {
		size += 1 + protowire.SizeBytes(len(itemText(f)))
	}
	if !room.take(size) {
		shorten(f)
	}
	l.listed = append(l.listed, f)
	if withText {
		l.texts = append(l.texts, itemText(f))
	}
}
