package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/yourorg/userservice/client"
	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// saveRows is the number of rows after which the statuses are set and the state is saved.
const saveRows = 5000

// importJob sends the rows of an import.
type importJob struct {
	*session

	state   *importState
	rows    rowReader
	refused io.Writer
	policy  userv1.ConflictPolicy
	dryRun  bool
	bar     *progress

	sent    []sentRow // without result, in order
	results []sentRow // since the state was saved
	failed  error     // of reading the file
}

// sentRow is a row, which is sent unless it has an error, with its result.
type sentRow struct {
	importRow

	number int // from 0
	result client.ItemResult
}

func (j *importJob) run(ctx context.Context) error {
	for range j.state.Rows {
		if _, err := j.rows.Read(); err != nil {
			return err // not the end: the file is that of the state
		}
	}
	j.bar.set(j.state.Rows)
	_, err := j.client.BatchCreateUsers(ctx, j.creates, func(r client.ItemResult) error {
		first := slices.IndexFunc(j.sent, func(row sentRow) bool { return row.err == nil })
		j.sent[first].result = r
		j.results = append(j.results, j.sent[:first+1]...)
		j.sent = j.sent[first+1:]
		j.bar.set(j.state.Rows + len(j.results))
		if len(j.results) >= saveRows {
			return j.save(ctx)
		}
		return nil
	})
	if err != nil {
		return err
	}
	j.results = append(j.results, j.sent...)
	return errors.Join(j.save(ctx), j.failed)
}

// creates reads the rows and yields those to send.
func (j *importJob) creates(yield func(*userv1.BatchCreateUsersRequest) bool) {
	for number := j.state.Rows; ; number++ {
		row, err := j.rows.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			j.failed = err
			return
		}
		if row.err == nil && row.user.GetDeletedAt() != nil {
			row.err = errors.New("the user is deleted")
		}
		j.sent = append(j.sent, sentRow{importRow: row, number: number})
		if row.err == nil && !yield(j.create(number, row.user)) {
			return
		}
	}
}

// save sets the statuses of the rows with results, reports refused rows, and saves the state.
func (j *importJob) save(ctx context.Context) error {
	var updates []*userv1.UpdateUserRequest
	var updated []int // index in results of each update
	for i, row := range j.results {
		if row.err == nil && j.setsStatus(row.user, row.result) {
			updates = append(updates, j.update(row.number, row.result.UserID, row.user.GetStatus()))
			updated = append(updated, i)
		}
	}
	_, err := j.client.BatchUpdateUsers(ctx, slices.Values(updates), func(r client.ItemResult) error {
		if r.Err != nil {
			j.results[updated[r.Index]].err = fmt.Errorf("the user was stored, but not its status: %w", r.Err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, row := range j.results {
		j.state.Summary.count(row.result.Outcome)
		if row.err == nil {
			row.err = row.result.Err
		}
		if row.err == nil {
			continue
		}
		j.state.Summary.Refused++
		if _, err := fmt.Fprintf(j.refused, "line %d: %s\n", row.line, printable(reasonOf(row.err))); err != nil {
			return err
		}
	}
	j.state.Rows += len(j.results)
	j.results = j.results[:0]
	return j.state.save()
}

// reasonOf returns the message of an item without its method and code.
func reasonOf(err error) string {
	if rpc, ok := err.(*client.Error); ok { //nolint:errorlint // a wrapped error has a text of its own
		return rpc.Message
	}
	return err.Error()
}

func (j *importJob) create(row int, u *userv1.User) *userv1.BatchCreateUsersRequest {
	return &userv1.BatchCreateUsersRequest{
		User: &userv1.CreateUserRequest{
			Username: u.GetUsername(), Email: u.GetEmail(), Tags: u.GetTags(), Metadata: u.GetMetadata(),
			RequestId: j.state.requestID(row, writeCreate), ValidateOnly: j.dryRun,
		},
		ConflictPolicy: j.policy,
	}
}

// setsStatus reports whether the status of a row must be set after its user was stored: a new user is active, and a
// user that was skipped keeps its status.
func (j *importJob) setsStatus(u *userv1.User, r client.ItemResult) bool {
	switch {
	case j.dryRun || r.Err != nil || r.UserID == 0 || u.GetStatus() == userv1.UserStatus_USER_STATUS_UNSPECIFIED:
		return false
	case r.Outcome == userv1.ItemOutcome_ITEM_OUTCOME_CREATED:
		return u.GetStatus() != userv1.UserStatus_USER_STATUS_ACTIVE
	default:
		return j.policy == userv1.ConflictPolicy_CONFLICT_POLICY_UPDATE
	}
}

func (j *importJob) update(row int, id int64, status userv1.UserStatus) *userv1.UpdateUserRequest {
	return &userv1.UpdateUserRequest{
		UserId: id, User: &userv1.User{Status: status}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"status"}},
		RequestId: j.state.requestID(row, writeStatus),
	}
}
