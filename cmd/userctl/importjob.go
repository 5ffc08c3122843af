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

// importChunk is the number of rows that are sent together.
const importChunk = 1000

// importJob sends the rows of an import in chunks.
type importJob struct {
	*session

	state   *importState
	rows    rowReader
	refused io.Writer
	policy  userv1.ConflictPolicy
	dryRun  bool
	bar     *progress
}

func (j *importJob) run(ctx context.Context) error {
	for range j.state.Rows {
		if _, err := j.rows.Read(); err != nil {
			return err // not the end: the file is that of the state
		}
		j.bar.add(1)
	}
	for {
		chunk, end, err := j.read()
		if err != nil {
			return err
		}
		if err := j.send(ctx, chunk); err != nil {
			return err
		}
		j.bar.add(len(chunk))
		if end {
			return nil
		}
	}
}

// read returns the next rows.
func (j *importJob) read() (chunk []importRow, end bool, err error) {
	for len(chunk) < importChunk {
		row, err := j.rows.Read()
		if errors.Is(err, io.EOF) {
			return chunk, true, nil
		}
		if err != nil {
			return nil, false, err
		}
		if row.err == nil && row.user.GetDeletedAt() != nil {
			row.err = errors.New("the user is deleted")
		}
		chunk = append(chunk, row)
	}
	return chunk, false, nil
}

// send applies a chunk, reports refused rows, and saves the state.
func (j *importJob) send(ctx context.Context, chunk []importRow) error {
	counts := j.state.Summary
	var creates []*userv1.BatchCreateUsersRequest
	var sent []int // index in chunk of each create
	for i, row := range chunk {
		if row.err == nil {
			creates = append(creates, j.create(j.state.Rows+i, row.user))
			sent = append(sent, i)
		}
	}
	var updates []*userv1.UpdateUserRequest
	var updated []int // index in chunk of each update
	_, err := j.client.BatchCreateUsers(ctx, slices.Values(creates), func(r client.ItemResult) error {
		i := sent[r.Index]
		switch r.Outcome {
		case userv1.ItemOutcome_ITEM_OUTCOME_CREATED:
			counts.Created++
		case userv1.ItemOutcome_ITEM_OUTCOME_UPDATED:
			counts.Updated++
		case userv1.ItemOutcome_ITEM_OUTCOME_UNCHANGED:
			counts.Unchanged++
		case userv1.ItemOutcome_ITEM_OUTCOME_VALID:
			counts.Valid++
		default:
			chunk[i].err = r.Err
		}
		if j.setsStatus(chunk[i].user, r) {
			updates = append(updates, j.update(j.state.Rows+i, r.UserID, chunk[i].user.GetStatus()))
			updated = append(updated, i)
		}
		return nil
	})
	if err != nil {
		return err
	}
	_, err = j.client.BatchUpdateUsers(ctx, slices.Values(updates), func(r client.ItemResult) error {
		if r.Err != nil {
			i := updated[r.Index]
			chunk[i].err = fmt.Errorf("the user was stored, but not its status: %w", r.Err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, row := range chunk {
		if row.err == nil {
			continue
		}
		counts.Refused++
		if _, err := fmt.Fprintf(j.refused, "line %d: %s\n", row.line, printable(reasonOf(row.err))); err != nil {
			return err
		}
	}
	j.state.Summary = counts
	j.state.Rows += len(chunk)
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
			RequestId: j.state.requestID(row, "create"), ValidateOnly: j.dryRun,
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
		RequestId: j.state.requestID(row, "status"),
	}
}
