package server_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
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
	user.HostNotAllowed: "refuse_logged_test.go", user.OriginNotAllowed: "refuse_logged_test.go",
}

// The reasons of the contract and the domain are the same, and each is tested over all protocols or is
// listed in testedElsewhere.
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
	named := namedReasons(t)
	for number, name := range userv1.ErrorReason_name {
		if number == int32(userv1.ErrorReason_ERROR_REASON_UNSPECIFIED) {
			continue
		}
		if !slices.Contains(named, name) {
			t.Errorf("package user has no constant for %s", name)
		}
		if !provoked[name] {
			t.Errorf("no row tests %s", name)
		}
	}
	for _, name := range named {
		if userv1.ErrorReason_value[name] == 0 {
			t.Errorf("the contract has no reason %s", name)
		}
	}
}

// namedReasons parses the constants of type Reason from the source.
func namedReasons(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../user/errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); !ok || kind.Name != "Reason" {
			return true
		}
		for _, value := range spec.Values {
			text, ok := value.(*ast.BasicLit)
			if !ok {
				t.Fatalf("%v is no text", value)
			}
			name, err := strconv.Unquote(text.Value)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
		return true
	})
	return names
}
