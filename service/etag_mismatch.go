package service

import (
	"context"
	"maps"
	"strings"

	"github.com/yourorg/userservice/service/user"
)

// maxExplainedRows is how far back the log is read to say what has changed.
const maxExplainedRows = 200

// explainMismatch adds to an ETAG_MISMATCH what has changed since the caller's etag
// (changed_fields) and leaves every other error as it is. Where it cannot be told
// (no etag of this user, or the store cannot be read) nothing is added.
func (s *Service) explainMismatch(ctx context.Context, err error, id int64, etag string) error {
	e, ok := user.AsError(err)
	if !ok || e.Reason != user.EtagMismatch {
		return err
	}
	since, ok := user.EtagVersion(etag)
	if !ok {
		return err
	}
	// The log is read first, so that the user is at least as new as its rows are
	// and rather too many fields are named than too few.
	page, logErr := s.store.Log(ctx, user.LogQuery{UserID: id, Desc: true, MaxRows: maxExplainedRows})
	if logErr != nil {
		return err
	}
	cur, getErr := s.store.Get(ctx, id)
	if getErr != nil {
		return err
	}
	explained := *e
	explained.Metadata = maps.Clone(e.Metadata)
	explained.Metadata["etag"] = cur.Etag()
	explained.Metadata["changed_fields"] = strings.Join(user.ChangedSince(page.Rows, cur.Version-since), ",")
	return &explained
}
