package server_test

import (
	"testing"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/user"
)

// testedElsewhere are reasons without a row in the tables.
var testedElsewhere = map[user.Reason]string{
	// TestDrainEndsEveryStream, and stream_test.go of package rest.
	user.ServerDraining: "drain_test.go",
	// TestStalledReaderResumes.
	user.StreamStalled: "stall_resume_test.go",
	// TestRefusalsInClientProtocol: hosts and origins.
	user.HostNotAllowed: "refusals_test.go", user.OriginNotAllowed: "refusals_test.go",
}

// Each reason of the contract is tested over all protocols or is listed in testedElsewhere, and no other
// reason is.
func TestEveryReasonIsTested(t *testing.T) {
	t.Parallel()
	provoked := map[string]bool{}
	for _, table := range []map[string]failing{whose{}.rows(), positionRows(user.Head{}), tokens{}.rows()} {
		for _, row := range table {
			provoked[string(row.reason)] = true
		}
	}
	for _, row := range limitRows() {
		provoked[string(row.reason)] = true
	}
	for reason := range testedElsewhere {
		if provoked[string(reason)] {
			t.Errorf("%s is in a table and in testedElsewhere", reason)
		}
		provoked[string(reason)] = true
	}
	for number, name := range userv1.ErrorReason_name {
		if number == int32(userv1.ErrorReason_ERROR_REASON_UNSPECIFIED) {
			continue
		}
		if !provoked[name] {
			t.Errorf("no row tests %s", name)
		}
	}
	for name := range provoked {
		if userv1.ErrorReason_value[name] == 0 {
			t.Errorf("the contract has no reason %s", name)
		}
	}
}
