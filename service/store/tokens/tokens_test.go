package tokens

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/user"
)

// The tokens that are computed before a transaction are those of the user that it creates.
func TestOfDraft(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		op := &user.Create{
			ID: rapid.OneOf(rapid.Just(int64(3*SampleRate)), rapid.Int64Min(1)).Draw(r, "id"),
			Values: user.User{
				Tags:     rapid.SliceOf(rapid.String()).Draw(r, "tags"),
				Metadata: rapid.MapOf(rapid.String(), rapid.String()).Draw(r, "metadata"),
			},
			Keys: user.Keys{Username: rapid.String().Draw(r, "username key"), Email: rapid.String().Draw(r, "email key")},
		}
		created, err := op.Decide(nil, user.CommitStamp{}, user.Author{})
		if err != nil {
			t.Fatal(err)
		}
		before := OfDraft(op.Draft(user.Author{}), op.Keys)
		kept := slices.Clone(before)
		if got, want := WithSample(before, op.ID), OfUser(created.User, op.Keys); !slices.Equal(got, want) {
			r.Errorf("WithSample(OfDraft(op), %d) = %v, want %v", op.ID, got, want)
		}
		if !slices.Equal(before, kept) {
			r.Errorf("WithSample changed its argument to %v, want %v", before, kept)
		}
	})
}

// Stores contain these tokens: they must not change.
func TestTokensOfUser(t *testing.T) {
	t.Parallel()
	u := &user.User{ID: 3 * SampleRate, Status: user.StatusActive, Tags: []string{"vip"}}
	got := OfUser(u, user.Keys{Username: "abab", Email: "b@c"})
	want := []Token{0x616261, 0x624063, 0x626162, Sample}
	if len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
		t.Errorf("OfUser() = %x, want %x first", got, want)
	}
	var terms []user.Term
	for term := range u.Terms(user.TermFields()) {
		terms = append(terms, user.Term(term))
	}
	if len(terms) == 0 || len(got) != len(want)+len(terms) || !slices.IsSorted(got) {
		t.Errorf("OfUser() = %x, want the tokens of %d terms after %x, ascending", got, len(terms), want)
	}
	for _, term := range terms {
		if _, found := slices.BinarySearch(got, OfTerm(term)); !found {
			t.Errorf("OfUser() = %x, want also %x", got, OfTerm(term))
		}
	}
	u.ID++
	if other := OfUser(u, user.Keys{}); slices.Contains(other, Sample) || len(other) != len(terms) {
		t.Errorf("OfUser() of a user outside the sample = %x, want the tokens of %d terms", other, len(terms))
	}
	if got := OfUser(nil, user.Keys{Username: "abab"}); got != nil {
		t.Errorf("OfUser(nil) = %x, want none", got)
	}
	if got := OfTerm("tags:vip"); got>>63 != 1 {
		t.Errorf("OfTerm() = %x, want the highest bit set", got)
	}
}

// A change has the tokens in which the user before and after it differ.
func TestOfChange(t *testing.T) {
	t.Parallel()
	text := rapid.SampledFrom([]string{"", "a", "abc", "bcd", "abcd"})
	users := rapid.Custom(func(r *rapid.T) user.User {
		return user.User{
			ID: SampleRate, Status: rapid.SampledFrom([]user.Status{user.StatusActive, user.StatusInactive}).Draw(r, "status"),
			Tags:     rapid.SliceOfN(text, 0, 3).Draw(r, "tags"),
			Metadata: rapid.MapOfN(text, text, 0, 3).Draw(r, "metadata"),
		}
	})
	keys := rapid.Custom(func(r *rapid.T) user.Keys {
		return user.Keys{Username: text.Draw(r, "username"), Email: text.Draw(r, "email")}
	})
	rapid.Check(t, func(r *rapid.T) {
		cur, next := users.Draw(r, "cur"), users.Draw(r, "next")
		before, after := keys.Draw(r, "before"), keys.Draw(r, "after")
		removed, added := OfChange(&cur, before, &next, after)
		was, is := OfUser(&cur, before), OfUser(&next, after)
		if want := Without(was, is); !slices.Equal(removed, want) {
			r.Errorf("OfChange() removes %x, want %x", removed, want)
		}
		if want := Without(is, was); !slices.Equal(added, want) {
			r.Errorf("OfChange() adds %x, want %x", added, want)
		}
	})
}

// A token that a term of an unchanged field has too remains.
func TestDifferenceWithCollision(t *testing.T) {
	t.Parallel()
	a, b, c := OfTerm("a"), OfTerm("b"), OfTerm("c")
	list := func(tokens ...Token) []Token { return slices.Sorted(slices.Values(tokens)) }
	for _, test := range []struct {
		kept           string
		removed, added []Token
	}{
		{"x", list(a, b), list(c)},
		{"a", list(b), list(c)},
		{"c", list(a, b), nil},
	} {
		kept := slices.Values([][]byte{[]byte(test.kept)})
		if removed, added := difference(list(a, b), list(c), kept); !slices.Equal(removed, test.removed) || !slices.Equal(added, test.added) {
			t.Errorf("difference() with %s unchanged = %x, %x, want %x, %x", test.kept, removed, added, test.removed, test.added)
		}
	}
}

func TestWithout(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ a, b, want []Token }{
		{nil, []Token{1}, nil}, {[]Token{1, 2}, nil, []Token{1, 2}}, {[]Token{1, 2, 3}, []Token{2, 4}, []Token{1, 3}},
		{[]Token{5}, []Token{5}, []Token{}},
	} {
		kept := slices.Clone(test.a)
		if got := Without(test.a, test.b); !slices.Equal(got, test.want) || !slices.Equal(test.a, kept) {
			t.Errorf("Without(%v, %v) = %v, want %v", kept, test.b, got, test.want)
		}
	}
}

// The parts of rare bytes are first, each once, and there are at most maxParts.
func TestRareParts(t *testing.T) {
	t.Parallel()
	part := func(s string) Token { return textTokens(nil, s)[0] }
	for text, want := range map[string][]string{
		"ab":     nil,
		"ananan": {"ana", "nan"},
		"aaaq9z": {"q9z", "aq9", "aaq", "aaa"},
		"aaam0":  {"am0", "aam", "aaa"},
		"aaa/:0": {"/:0", "a/:", "aa/", "aaa"}, // / and : are next to the digits
	} {
		got := RareParts(text)
		var tokens []Token
		for _, s := range want {
			tokens = append(tokens, part(s))
		}
		if !slices.Equal(got, tokens) {
			t.Errorf("RareParts(%q) = %x, want %x", text, got, tokens)
		}
	}
	for _, rare := range []string{"j", "q", "0", "9"} {
		if got := RareParts("aa-aa" + rare); got[0] != part("aa"+rare) {
			t.Errorf("RareParts(aa-aa%s) = %x, want aa%s first", rare, got, rare)
		}
	}
	if got := RareParts("abcdefghijklmn"); len(got) != maxParts {
		t.Errorf("RareParts of 12 parts = %x, want %d", got, maxParts)
	}
}
