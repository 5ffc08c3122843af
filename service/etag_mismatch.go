package service

import (
	"context"
	"maps"
	"strings"

	"github.com/yourorg/userservice/service/user"
)

// maxMismatchRows is the number of log rows read to compute changed_fields.
const maxMismatchRows = 200

// addChangedFields adds changed_fields, the fields changed since the etag of the request, to an
// ETAG_MISMATCH error. It returns other errors unchanged, and also the mismatch if the etag is
// invalid or a read of the store fails.
func (s *Service) addChangedFields(ctx context.Context, err error, id int64, etag string) error {
	e, ok := user.AsError(err)
	if !ok || e.Reason != user.EtagMismatch {
		return err
	}
	since, ok := user.EtagVersion(etag)
	if !ok {
		return err
	}
	// Read the log first: the user is then at least as new as the rows, so no field is missing.
	page, logErr := s.store.Log(ctx, user.LogQuery{UserID: id, Desc: true, MaxRows: maxMismatchRows})
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
