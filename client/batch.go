package client

import (
	"context"
	"errors"
	"io"
	"iter"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// ItemResult is the result of an item of a batch.
type ItemResult struct {
	Index   int64              // of the item, from 0
	UserID  int64              // user created, updated or found; 0: none
	Outcome userv1.ItemOutcome // of an update: UPDATED, also if it had no effect, or FAILED
	Err     error              // of a failed item, an *Error
}

// BatchSummary counts the items of a batch by outcome.
type BatchSummary struct {
	Created, Updated, Unchanged, Failed, Valid int64
}

// count adds an item.
func (s *BatchSummary) count(outcome userv1.ItemOutcome) {
	switch outcome {
	case userv1.ItemOutcome_ITEM_OUTCOME_CREATED:
		s.Created++
	case userv1.ItemOutcome_ITEM_OUTCOME_UPDATED:
		s.Updated++
	case userv1.ItemOutcome_ITEM_OUTCOME_UNCHANGED:
		s.Unchanged++
	case userv1.ItemOutcome_ITEM_OUTCOME_VALID:
		s.Valid++
	default:
		s.Failed++
	}
}

// BatchCreateUsers imports users from an iterator of any length, and calls report for each item in order, if it is not
// nil. Items with the same username or e-mail address are applied in order, and all with CONFLICT_POLICY_UPDATE, others
// in any order. A failed item does not fail the batch.
//
// Items are sent in chunks of 2,000, up to three at a time. After an interruption a chunk is sent again; its request
// ids, which the client makes for items without one, keep an item from being applied twice. It returns the error of
// report, or that of the stream; the results of the chunks in flight are then unknown.
func (c *Client) BatchCreateUsers(
	ctx context.Context, items iter.Seq[*userv1.BatchCreateUsersRequest], report func(ItemResult) error,
) (BatchSummary, error) {
	b := batch[*userv1.BatchCreateUsersRequest]{
		identify: func(item *userv1.BatchCreateUsersRequest) *userv1.BatchCreateUsersRequest {
			if item.GetUser() == nil {
				return item // the server rejects it
			}
			return &userv1.BatchCreateUsersRequest{User: identifyCreate(item.GetUser()), ConflictPolicy: item.GetConflictPolicy()}
		},
		concerns: createConcerns, send: c.sendCreates, report: report,
	}
	return b.run(ctx, items)
}

// BatchUpdateUsers applies updates from an iterator of any length, in the way of BatchCreateUsers. Updates of a user are
// applied in order, and all that change a username or an e-mail address.
func (c *Client) BatchUpdateUsers(ctx context.Context, items iter.Seq[*userv1.UpdateUserRequest], report func(ItemResult) error) (BatchSummary, error) {
	b := batch[*userv1.UpdateUserRequest]{identify: identifyUpdate, concerns: updateConcerns, send: c.sendUpdates, report: report}
	return b.run(ctx, items)
}

// BatchUpdates returns the results of BatchUpdateUsers. An error of the stream is the last pair.
func (c *Client) BatchUpdates(ctx context.Context, items iter.Seq[*userv1.UpdateUserRequest]) iter.Seq2[ItemResult, error] {
	return results(func(report func(ItemResult) error) error {
		_, err := c.BatchUpdateUsers(ctx, items, report)
		return err
	})
}

// BatchCreates returns the results of BatchCreateUsers. An error of the stream is the last pair.
func (c *Client) BatchCreates(ctx context.Context, items iter.Seq[*userv1.BatchCreateUsersRequest]) iter.Seq2[ItemResult, error] {
	return results(func(report func(ItemResult) error) error {
		_, err := c.BatchCreateUsers(ctx, items, report)
		return err
	})
}

func results(run func(func(ItemResult) error) error) iter.Seq2[ItemResult, error] {
	return func(yield func(ItemResult, error) bool) {
		err := run(func(r ItemResult) error {
			if !yield(r, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(ItemResult{}, err)
		}
	}
}

// clientStream is the stream of a batch.
type clientStream[Req, Res any] interface {
	Send(*Req) error
	CloseAndReceive() (*Res, error)
}

// sendAll sends items and returns the response.
func sendAll[Req, Res any](stream clientStream[Req, Res], items []*Req) (*Res, error) {
	var sendErr error
	for _, item := range items {
		if sendErr = stream.Send(item); sendErr != nil {
			break
		}
	}
	response, err := stream.CloseAndReceive()
	if err == nil && sendErr != nil && !errors.Is(sendErr, io.EOF) { // EOF: the server has ended the stream
		err = sendErr
	}
	return response, err
}

func (c *Client) sendCreates(ctx context.Context, items []*userv1.BatchCreateUsersRequest) (results []ItemResult, err error) {
	err = c.mend(ctx, "BatchCreateUsers", func(ctx context.Context, a *attempt) error {
		stream, err := a.rpc.BatchCreateUsers(ctx)
		if err != nil {
			return err
		}
		response, err := sendAll(stream, items)
		if err != nil {
			return err
		}
		if len(response.GetResults()) != len(items) {
			return errEarlyEnd // the connection was closed between two items
		}
		results = make([]ItemResult, len(items))
		for i, r := range response.GetResults() {
			results[i] = ItemResult{Index: int64(i), UserID: r.GetUserId(), Outcome: r.GetOutcome()}
		}
		results = addFailures("BatchCreateUsers", results, response.GetFailures(), response.GetFailedCount())
		return nil
	})
	return results, err
}

func (c *Client) sendUpdates(ctx context.Context, items []*userv1.UpdateUserRequest) (results []ItemResult, err error) {
	err = c.mend(ctx, "BatchUpdateUsers", func(ctx context.Context, a *attempt) error {
		stream, err := a.rpc.BatchUpdateUsers(ctx)
		if err != nil {
			return err
		}
		response, err := sendAll(stream, items)
		if err != nil {
			return err
		}
		if int64(response.GetUpdatedCount())+response.GetFailedCount() != int64(len(items)) {
			return errEarlyEnd // the connection was closed between two items
		}
		results = make([]ItemResult, len(items))
		for i, item := range items {
			results[i] = ItemResult{Index: int64(i), UserID: item.GetUserId(), Outcome: userv1.ItemOutcome_ITEM_OUTCOME_UPDATED}
		}
		results = addFailures("BatchUpdateUsers", results, response.GetFailures(), response.GetFailedCount())
		return nil
	})
	return results, err
}

// addFailures sets the errors of the failed items. It returns the results up to the last failure if there are more than
// the response has.
func addFailures(method string, results []ItemResult, failures []*userv1.ItemFailure, count int64) []ItemResult {
	last := 0
	for _, failure := range failures {
		if i := int(failure.GetIndex()); i >= 0 && i < len(results) {
			results[i].Outcome, results[i].Err = userv1.ItemOutcome_ITEM_OUTCOME_FAILED, newItemError(method, failure)
			last = i
		}
	}
	if count > int64(len(failures)) && len(failures) > 0 {
		return results[:last+1]
	}
	return results
}
