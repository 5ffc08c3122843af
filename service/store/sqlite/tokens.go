package sqlite

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"

	"github.com/yourorg/userservice/service/user"
)

// token is a token of the index. Below sampleToken it is three bytes of the normal form of a username or an
// e-mail address, above it a hash of a term.
type token uint64

const (
	// sampleToken is a token of one in sampleRate users, see indexQuery.
	sampleToken token = 1 << 24
	sampleRate        = 256
	// tokenBase is the base in which the index has tokens.
	tokenBase = 36
)

// termToken returns the token of a term. The hash is cryptographic, so that callers cannot choose values that
// collide; a reader compares the user in any case.
func termToken(t user.Term) token {
	sum := sha256.Sum256([]byte(t))
	return token(binary.BigEndian.Uint64(sum[:])) | 1<<63
}

// textTokens returns the tokens of the parts of a text.
func textTokens(tokens []token, text string) []token {
	for i := range len(text) - user.MinContains + 1 {
		tokens = append(tokens, token(text[i])<<16|token(text[i+1])<<8|token(text[i+2]))
	}
	return tokens
}

// userTokens returns the tokens of a user, ascending. nil has none.
func userTokens(u *user.User, keys user.Keys) (tokens []token) {
	if u == nil {
		return nil
	}
	return withSample(sortedTokens(u.Terms(), keys), u.ID)
}

// createTokens returns the tokens of a user to be created, without those that depend on its ID.
func createTokens(op *user.Create) []token { return sortedTokens(op.Terms(), op.Keys) }

func sortedTokens(terms []user.Term, keys user.Keys) []token {
	tokens := make([]token, 0, len(terms)+len(keys.Username)+len(keys.Email))
	for _, t := range terms {
		tokens = append(tokens, termToken(t))
	}
	tokens = textTokens(textTokens(tokens, keys.Username), keys.Email)
	slices.Sort(tokens)
	return slices.Compact(tokens)
}

// withSample adds the sampleToken if the user is in the sample.
func withSample(tokens []token, id int64) []token {
	if id%sampleRate != 0 {
		return tokens
	}
	i, _ := slices.BinarySearch(tokens, sampleToken)
	return slices.Insert(slices.Clone(tokens), i, sampleToken)
}

// without returns the elements of a that are not in b, which is sorted.
func without(a, b []token) []token {
	if len(a) == 0 || len(b) == 0 {
		return a
	}
	return slices.DeleteFunc(slices.Clone(a), func(t token) bool {
		_, found := slices.BinarySearch(b, t)
		return found
	})
}

// joinTokens returns tokens as a text of the index.
func joinTokens(tokens []token) string {
	b := make([]byte, 0, 8*len(tokens))
	for i, t := range tokens {
		if i > 0 {
			b = append(b, ' ')
		}
		b = strconv.AppendUint(b, uint64(t), tokenBase)
	}
	return string(b)
}

// splitTokens is the inverse of joinTokens. It returns the tokens ascending.
func splitTokens(text string) (tokens []token, err error) {
	for word := range strings.FieldsSeq(text) {
		t, err := parseToken(word)
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, t)
	}
	slices.Sort(tokens)
	return tokens, nil
}

func parseToken(word string) (token, error) {
	n, err := strconv.ParseUint(word, tokenBase, 64)
	if err != nil {
		return 0, errEncoding
	}
	return token(n), nil
}

// maxParts is the largest number of parts of a text that a query uses: each further one that is frequent costs more
// than it excludes.
const maxParts = 6

// rareParts returns the parts of a text that are probably the rarest.
func rareParts(text string) []token {
	tokens := textTokens(nil, text)
	slices.Sort(tokens)
	tokens = slices.Compact(tokens)
	slices.SortStableFunc(tokens, func(a, b token) int { return cmp.Compare(rarity(b), rarity(a)) })
	return tokens[:min(len(tokens), maxParts)]
}

// rarity returns a larger number for parts of rarer bytes, as they are in names and addresses.
func rarity(t token) (sum int) {
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

// indexQuery returns a condition in the query language of the index. Users that match the query may not meet
// the condition. Of the parts of a conjunction all but the first are also met by a sample of the users: two
// frequent parts may have no user in common, and reading the index would return nothing for long.
func indexQuery(c *user.Condition) string {
	switch {
	case c.Term != "":
		return joinTokens([]token{termToken(c.Term)})
	case c.Contains != "":
		return "(" + strings.ReplaceAll(joinTokens(rareParts(c.Contains)), " ", " AND ") + ")"
	case c.Any != nil:
		return "(" + joinQueries(c.Any, " OR ", "") + ")"
	default:
		return "(" + joinQueries(c.All, " AND ", " OR "+joinTokens([]token{sampleToken})) + ")"
	}
}

// joinQueries joins the queries of conditions. Those after the first get an alternative.
func joinQueries(conditions []user.Condition, operator, alternative string) string {
	var b strings.Builder
	for i := range conditions {
		query := indexQuery(&conditions[i])
		if i > 0 {
			b.WriteString(operator)
			if alternative != "" {
				query = "(" + query + alternative + ")"
			}
		}
		b.WriteString(query)
	}
	return b.String()
}
