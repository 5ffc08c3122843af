package user_test

import (
	"slices"
	"testing"
	"time"

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
		var got []user.Term
		for term := range test.user.Terms(user.TermFields()) {
			got = append(got, user.Term(term))
		}
		slices.Sort(got)
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: Terms() = %q, want %q", test.name, got, test.want)
		}
	}
}

func TestCondition(t *testing.T) {
	vip := user.Condition{Term: user.FieldByName("tags").ElementTerm("vip")}
	other := user.Condition{Term: user.FieldByName("tags").ElementTerm("other")}
	keys := user.Keys{Username: "ann", Email: "a@example.org"}
	for name, test := range map[string]struct {
		condition user.Condition
		want      bool
	}{
		"term":                {vip, true},
		"other term":          {other, false},
		"part of username":    {user.Condition{Contains: "nn"}, true},
		"part of e-mail":      {user.Condition{Contains: "@ex"}, true},
		"part of neither":     {user.Condition{Contains: "nn@"}, false},
		"any":                 {user.Condition{Any: []user.Condition{other, vip}}, true},
		"any, none is met":    {user.Condition{Any: []user.Condition{other, other}}, false},
		"all":                 {user.Condition{All: []user.Condition{vip, vip}}, true},
		"all, one is not met": {user.Condition{All: []user.Condition{vip, other}}, false},
	} {
		if got := test.condition.Meets(ann(), keys); got != test.want {
			t.Errorf("%s: Meets() = %t, want %t", name, got, test.want)
		}
	}
}

func TestIntersect(t *testing.T) {
	at := func(hour int) time.Time { return time.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC) }
	for name, test := range map[string]struct{ a, b, want user.TimeRange }{
		"none":           {},
		"from":           {a: user.TimeRange{From: at(2)}, b: user.TimeRange{From: at(3)}, want: user.TimeRange{From: at(3)}},
		"until":          {a: user.TimeRange{Until: at(5)}, b: user.TimeRange{Until: at(4)}, want: user.TimeRange{Until: at(4)}},
		"both":           {a: user.TimeRange{From: at(2), Until: at(5)}, b: user.TimeRange{From: at(3), Until: at(4)}, want: user.TimeRange{From: at(3), Until: at(4)}},
		"from and until": {a: user.TimeRange{From: at(2)}, b: user.TimeRange{Until: at(4)}, want: user.TimeRange{From: at(2), Until: at(4)}},
	} {
		if got := test.a.Intersect(test.b); got != test.want {
			t.Errorf("%s: Intersect() = %v, want %v", name, got, test.want)
		}
		if got := test.b.Intersect(test.a); got != test.want {
			t.Errorf("%s, exchanged: Intersect() = %v, want %v", name, got, test.want)
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
