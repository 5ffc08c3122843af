package batch

import (
	"crypto/rand"
	"log/slog"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/rpcstatus"
)

// MaxFailures bounds the failures listed in the response of a client stream.
const MaxFailures = 1000

// NewFailure converts the error of an item. userID is the user of the item, 0 for none. An unexpected
// error is logged with the incident id that the client receives.
func NewFailure(log *slog.Logger, index int, userID int64, err error) *userv1.ItemFailure {
	st := statusOf(log, err)
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

func statusOf(log *slog.Logger, err error) *status.Status {
	if st, known := rpcstatus.From(err); known {
		return st
	}
	incident := rand.Text()
	log.Error("unexpected item error", "incident", incident, "error", err)
	return rpcstatus.Internal(incident)
}

// Shorten keeps the machine-readable part of a failure and the start of its message.
func Shorten(f *userv1.ItemFailure) {
	f.Message, _, _ = strings.Cut(f.GetMessage(), ": ")
	f.FieldViolations, f.Metadata = nil, nil
}

// Failures lists the first MaxFailures failures of a client stream and counts all.
type Failures struct {
	Log       *slog.Logger
	Remaining SizeBudget
	WithTexts bool // also in text form

	Count  int64
	Listed []*userv1.ItemFailure
	Texts  []string
}

// Full reports whether further failures are only counted.
func (l *Failures) Full() bool { return len(l.Listed) >= MaxFailures }

// Add adds the failure of an item. Beyond the budget it is short.
func (l *Failures) Add(index int, userID int64, err error) {
	l.Count++
	if l.Full() {
		return
	}
	f := NewFailure(l.Log, index, userID, err)
	size := EmbeddedSize(f)
	if l.WithTexts {
		size += 1 + protowire.SizeBytes(len(itemText(f)))
	}
	if !l.Remaining.Reserve(size) {
		Shorten(f)
	}
	l.Listed = append(l.Listed, f)
	if l.WithTexts {
		l.Texts = append(l.Texts, itemText(f))
	}
}

func itemText(f *userv1.ItemFailure) string {
	return "item " + strconv.FormatInt(f.GetIndex(), 10) + ": " + f.GetMessage()
}
