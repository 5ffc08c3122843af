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
	// maxListed bounds the failures listed in the response of a client stream.
	maxListed = 1000
	// shortItemBytes is the maximum encoded size of a short item.
	shortItemBytes = 256
)

// itemFailure converts the error of an item. userID is the user of the item, 0 for none.
func (s *Service) itemFailure(index int, userID int64, err error) *userv1.ItemFailure {
	st := s.itemStatus(err)
	f := &userv1.ItemFailure{
		Index: int64(index), UserId: userID, Code: code.Code(st.GetCode()), Message: st.GetMessage(),
	}
	for _, packed := range st.GetDetails() {
		detail, err := packed.UnmarshalNew()
		if err != nil {
			continue // unknown detail type
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

func itemText(f *userv1.ItemFailure) string {
	return "item " + strconv.FormatInt(f.GetIndex(), 10) + ": " + f.GetMessage()
}

// shorten keeps the machine-readable part of a failure and the start of its message.
func shorten(f *userv1.ItemFailure) {
	f.Message, _, _ = strings.Cut(f.GetMessage(), ": ")
	f.FieldViolations, f.Metadata = nil, nil
}

// sizeBudget is the number of bytes by which a response may exceed the short form of its items.
// When it is exhausted the remaining items are short, so the response fits a message.
type sizeBudget int

func (s *Service) newSizeBudget(items, itemBytes int) sizeBudget {
	return sizeBudget(s.opts.MaxMessageBytes - responseEnvelope - items*itemBytes)
}

func (b *sizeBudget) reserve(bytes int) bool {
	if int(*b) < bytes {
		return false
	}
	*b -= sizeBudget(bytes)
	return true
}

// userResult converts the result of one item of a unary batch.
func (s *Service) userResult(index int, userID int64, result *user.Result, remaining *sizeBudget) *userv1.UserResult {
	out := &userv1.UserResult{Outcome: outcomeToProto(result.Outcome)}
	if result.Err != nil {
		out.Outcome = userv1.ItemOutcome_ITEM_OUTCOME_FAILED
		out.Failure = s.itemFailure(index, userID, result.Err)
		if !remaining.reserve(proto.Size(out.GetFailure())) {
			shorten(out.GetFailure())
		}
		return out
	}
	out.User = resultToProto(result)
	if full := out.GetUser(); result.Summary || !remaining.reserve(proto.Size(full)) {
		out.User = &userv1.User{
			UserId: full.GetUserId(), Version: full.GetVersion(), Etag: full.GetEtag(), UpdatedAt: full.GetUpdatedAt(),
		}
	}
	return out
}

// failureList lists the first maxListed failures of a client stream and counts all.
type failureList struct {
	count  int64
	listed []*userv1.ItemFailure
	texts  []string
}

// full reports whether further failures are only counted.
func (l *failureList) full() bool { return len(l.listed) >= maxListed }

func (l *failureList) add(f *userv1.ItemFailure, withText bool, remaining *sizeBudget) {
	size := embeddedSize(f)
	if withText {
		size += 1 + protowire.SizeBytes(len(itemText(f)))
	}
	if !remaining.reserve(size) {
		shorten(f)
	}
	l.listed = append(l.listed, f)
	if withText {
		l.texts = append(l.texts, itemText(f))
	}
}
