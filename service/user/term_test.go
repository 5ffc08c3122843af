package user_test

import (
	"slices"
	"testing"

	"github.com/yourorg/userservice/service/user"
)

func TestTerms(t *testing.T) {
	status, tags, metadata := user.FieldByName("status"), user.FieldByName("tags"), user.FieldByName("metadata")
	for _, test := range []struct {
		name string
		user user.User
		want []user.Term
	}{
		{"status only", user.User{Status: user.StatusActive}, []user.Term{status.StatusTerm(user.StatusActive)}},
		{
			"tags", user.User{Status: user.StatusSuspended, Tags: []string{"b", "a"}},
			[]user.Term{status.StatusTerm(user.StatusSuspended), tags.PresentTerm(), tags.ElementTerm("a"), tags.ElementTerm("b")},
		},
		{
			"metadata", user.User{Status: user.StatusActive, Metadata: map[string]string{"k": "v", "": ""}},
			[]user.Term{
				status.StatusTerm(user.StatusActive), metadata.PresentTerm(), metadata.KeyTerm("k"), metadata.PairTerm("k", "v"),
				metadata.KeyTerm(""), metadata.PairTerm("", ""),
			},
		},
	} {
		slices.Sort(test.want)
		if got := test.user.Terms(); !slices.Equal(got, test.want) {
			t.Errorf("%s: Terms() = %q, want %q", test.name, got, test.want)
		}
	}
}

func TestTermsOfDifferentPropertiesDiffer(t *testing.T) {
	tags, metadata := user.FieldByName("tags"), user.FieldByName("metadata")
	terms := []user.Term{
		tags.PresentTerm(), metadata.PresentTerm(), tags.ElementTerm("ab"), metadata.KeyTerm("ab"), metadata.KeyTerm("a"),
		metadata.PairTerm("a", "b"), metadata.PairTerm("ab", ""), metadata.PairTerm("", "ab"), tags.ElementTerm(""), metadata.KeyTerm(""),
	}
	for i, a := range terms {
		if slices.Contains(terms[:i], a) {
			t.Errorf("term %d = %q, want it to differ from the others", i, a)
		}
	}
}
