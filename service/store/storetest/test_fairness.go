package storetest

import (
	"fmt"
	"sync"

	"github.com/yourorg/userservice/service/user"
)

var fairnessTests = map[string]func(*harness){
	"point reads do not wait for scans": func(h *harness) {
		const users, lists = 20, 64
		var ids []int64
		for i := range users {
			ids = append(ids, h.mustApply(createOp(fmt.Sprint("user", i))).User.ID)
		}
		release, begun := make(chan struct{}), make(chan struct{}, lists)
		var scans sync.WaitGroup
		for i := range lists {
			ctx := user.WithCaller(h.ctx(), fmt.Sprint("caller", i%3))
			scans.Go(func() {
				_, err := h.store.List(ctx, user.ListQuery{MaxUsers: 1, MaxScanned: 1000, MaxBytes: 1 << 20, Match: func(*user.User, user.Keys) bool {
					select {
					case begun <- struct{}{}:
					default:
					}
					<-release
					return false
				}})
				if err != nil {
					h.Error(err)
				}
			})
		}
		<-begun
		for _, id := range ids {
			h.get(id)
			if got, err := h.store.GetMany(h.ctx(), []int64{id}); err != nil || len(got) != 1 {
				h.Errorf("GetMany(%d) = %v, %v, want one user", id, got, err)
			}
			if got, err := h.store.Statuses(h.ctx(), []int64{id}); err != nil || len(got) != 1 {
				h.Errorf("Statuses(%d) = %v, %v, want one status", id, got, err)
			}
		}
		if got, err := h.store.Log(h.ctx(), user.LogQuery{MaxRows: 1}); err != nil || len(got.Rows) != 1 {
			h.Errorf("Log(MaxRows: 1) = %v, %v, want one row", got, err)
		}
		close(release)
		scans.Wait()
	},
	"concurrent batches of several callers keep their order and results": func(h *harness) {
		const callers, batches, size = 4, 5, 300
		runConcurrently(callers, func(i int) {
			ctx := user.WithCaller(h.ctx(), fmt.Sprint("caller", i))
			var pending []*user.Pending
			for b := range batches {
				var batch user.Batch
				for k := range size {
					batch.Changes = append(batch.Changes, user.Change{Op: createOp(fmt.Sprintf("user%d-%d-%d", i, b, k%(size-1)))})
				}
				pending = append(pending, h.store.Submit(ctx, batch))
			}
			last := int64(0)
			for b, p := range pending {
				results, err := p.Wait(h.ctx())
				if err != nil || len(results) != size {
					h.Errorf("batch %d of caller %d: %d results, error %v", b, i, len(results), err)
					return
				}
				for k, r := range results[:size-1] {
					if r.Err != nil || r.Position <= last {
						h.Errorf("change %d of batch %d of caller %d: position %d after %d, error %v", k, b, i, r.Position, last, r.Err)
					}
					last = r.Position
				}
				if err := results[size-1].Err; !user.HasReason(err, user.UsernameTaken) {
					h.Errorf("batch %d, duplicate username: error = %v, want USERNAME_TAKEN", b, err)
				}
			}
		})
		if head := h.head().Position; head != callers*batches*(size-1) {
			h.Errorf("head position = %d, want %d", head, callers*batches*(size-1))
		}
		h.checkLog()
	},
}
