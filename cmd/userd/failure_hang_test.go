package main_test

import (
	"context"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// While reads of the disk hang, calls end at their deadlines and health reports reads as not
// serving.
func TestHungReads(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	s := startFailureTest(ctx, t, t.TempDir())
	for range 200 {
		s.mustCreate(ctx, t)
	}
	s.process.terminate(t)
	s.restart(t) // with an empty page cache
	reads, writes := s.watch(ctx, readsName), s.watch(ctx, writesName)
	reads.await(ctx, t, grpchealth.StatusServing)
	s.awaitServing(ctx, t, writes)
	path := filepath.Join(s.program.dir, databaseFile)
	tr := inject(t, s.process, "-P", path, "-P", path+"-wal", "-e", "trace=pread64", "-e", "inject=pread64:delay_enter=40000000")
	for i := range 8 { // more than the store has read connections
		id := s.acked[i*25]
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		if _, err := s.client.GetUser(short, &userv1.GetUserRequest{UserId: id}); connect.CodeOf(err) != connect.CodeDeadlineExceeded {
			t.Errorf("GetUser error = %v, want DEADLINE_EXCEEDED", err)
		}
		cancel()
	}
	reads.await(ctx, t, grpchealth.StatusNotServing)
	if status, text := s.readyz(ctx, t); status != http.StatusServiceUnavailable || !hasAll(text, []string{"reads: probe timed out"}) {
		t.Errorf("/readyz = %d, %q, want a read timeout", status, text)
	}
	tr.detach()
	reads.await(ctx, t, grpchealth.StatusServing)
	s.mustRead(ctx, t)
	s.mustSurvive(ctx, t)
}
