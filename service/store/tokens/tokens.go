// Package tokens has the tokens of users by which stores find the users that meet a condition.
package tokens

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"iter"
	"slices"
	"strings"

	"github.com/yourorg/userservice/service/user"
)

// Token is a token of the index. Below Sample it is three bytes of the normal form of a username or an
// e-mail address, above it a hash of a term.
type Token uint64

const (
	// Sample is a token of one in SampleRate users. It bounds the search for users with two frequent tokens, and is the
	// base of estimates.
	Sample Token = 1 << 24
	// SampleRate is the number of users per user with the token Sample.
	SampleRate = 256
)

// OfTerm returns the token of a term. The hash is cryptographic, so that callers cannot choose values that
// collide; a reader compares the user in any case.
func OfTerm(t user.Term) Token { return ofTerm([]byte(t)) }

func ofTerm(t []byte) Token {
	sum := sha256.Sum256(t)
	return Token(binary.BigEndian.Uint64(sum[:])) | 1<<63
}

// textTokens returns the tokens of the parts of a text.
func textTokens(tokens []Token, text string) []Token {
	for i := range len(text) - user.MinContains + 1 {
		tokens = append(tokens, Token(text[i])<<16|Token(text[i+1])<<8|Token(text[i+2]))
	}
	return tokens
}

// OfUser returns the tokens of a user, ascending. nil has none.
func OfUser(u *user.User, keys user.Keys) (tokens []Token) {
	if u == nil {
		return nil
	}
	return WithSample(sorted(u.Terms(user.TermFields()), keys), u.ID)
}

// OfDraft returns the tokens of a user to be created, without those that depend on its ID.
func OfDraft(d *user.Draft, keys user.Keys) []Token { return sorted(d.Terms(), keys) }

// OfChange returns the tokens that a user has only before a change, and those that it has only after it. Keys that do not
// change may be empty, before and after.
func OfChange(cur *user.User, before user.Keys, next *user.User, after user.Keys) (removed, added []Token) {
	if before == after {
		before, after = user.Keys{}, user.Keys{}
	}
	changed := cur.Differing(next, user.TermFields())
	return difference(sorted(cur.Terms(changed), before), sorted(next.Terms(changed), after), next.Terms(user.TermFields()&^changed))
}

// difference returns the tokens that are only in was, and those that are only in is, without those of kept: terms of
// different fields can have the same token.
func difference(was, is []Token, kept iter.Seq[[]byte]) (removed, added []Token) {
	removed, added = Without(was, is), Without(is, was)
	if len(removed)+len(added) == 0 {
		return nil, nil
	}
	for term := range kept {
		t := ofTerm(term)
		removed, added = without(removed, t), without(added, t)
	}
	return removed, added
}

// without returns the list, which is sorted, without a token. It modifies the list.
func without(list []Token, t Token) []Token {
	if i, found := slices.BinarySearch(list, t); found {
		return slices.Delete(list, i, i+1)
	}
	return list
}

func sorted(terms iter.Seq[[]byte], keys user.Keys) []Token {
	tokens := make([]Token, 0, 16+len(keys.Username)+len(keys.Email))
	for t := range terms {
		tokens = append(tokens, ofTerm(t))
	}
	tokens = textTokens(textTokens(tokens, keys.Username), keys.Email)
	slices.Sort(tokens)
	return slices.Compact(tokens)
}

// WithSample adds the token Sample if the user is in the sample.
func WithSample(tokens []Token, id int64) []Token {
	if id%SampleRate != 0 {
		return tokens
	}
	i, _ := slices.BinarySearch(tokens, Sample)
	return slices.Insert(slices.Clone(tokens), i, Sample)
}

// Without returns the elements of a that are not in b, which is sorted.
func Without(a, b []Token) []Token {
	if len(a) == 0 || len(b) == 0 {
		return a
	}
	return slices.DeleteFunc(slices.Clone(a), func(t Token) bool {
		_, found := slices.BinarySearch(b, t)
		return found
	})
}

// maxParts is the largest number of parts of a text that a query uses: each further one that is frequent costs more
// than it excludes.
const maxParts = 6

// RareParts returns the parts of a text that are probably the rarest.
func RareParts(text string) []Token {
	tokens := textTokens(nil, text)
	slices.Sort(tokens)
	tokens = slices.Compact(tokens)
	slices.SortStableFunc(tokens, func(a, b Token) int { return cmp.Compare(rarity(b), rarity(a)) })
	return tokens[:min(len(tokens), maxParts)]
}

// rarity returns a larger number for parts of rarer bytes, as they are in names and addresses.
func rarity(t Token) (sum int) {
	for ; t > 0; t >>= 8 {
		switch c := byte(t); {
		case strings.IndexByte("aeinorstl.@ ", c) >= 0:
		case strings.IndexByte("jqvwxyz", c) >= 0, '0' <= c && c <= '9':
			sum += 2
		default:
			sum++
		}
	}
	return sum
}
