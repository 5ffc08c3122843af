package sqlite

import (
	"slices"
	"strconv"
	"strings"

	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/store/tokens"
	"github.com/yourorg/userservice/service/user"
)

// tokenBase is the base in which the index has tokens.
const tokenBase = 36

// joinTokens returns tokens as a text of the index.
func joinTokens(list []tokens.Token) string {
	b := make([]byte, 0, 8*len(list))
	for i, t := range list {
		if i > 0 {
			b = append(b, ' ')
		}
		b = appendToken(b, t)
	}
	return string(b)
}

// appendToken is strconv.AppendUint for the constant base, which takes half of the time.
func appendToken(b []byte, t tokens.Token) []byte {
	const digits = "0123456789abcdefghijklmnopqrstuvwxyz"
	var text [13]byte
	for i := len(text) - 1; ; i-- {
		text[i] = digits[t%tokenBase]
		if t /= tokenBase; t == 0 {
			return append(b, text[i:]...)
		}
	}
}

// splitTokens is the inverse of joinTokens. It returns the tokens ascending.
func splitTokens(text string) (list []tokens.Token, err error) {
	for word := range strings.FieldsSeq(text) {
		t, err := parseToken(word)
		if err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	slices.Sort(list)
	return list, nil
}

func parseToken(word string) (tokens.Token, error) {
	n, err := strconv.ParseUint(word, tokenBase, 64)
	if err != nil {
		return 0, encoding.ErrEncoding
	}
	return tokens.Token(n), nil
}

// indexQuery returns a condition in the query language of the index. Users that match the query may not meet
// the condition. Of the parts of a conjunction all but the first are also met by a sample of the users: two
// frequent parts may have no user in common, and reading the index would return nothing for long.
func indexQuery(c *user.Condition) string {
	switch {
	case c.Term != "":
		return joinTokens([]tokens.Token{tokens.OfTerm(c.Term)})
	case c.Contains != "":
		return "(" + strings.ReplaceAll(joinTokens(tokens.RareParts(c.Contains)), " ", " AND ") + ")"
	case c.Any != nil:
		return "(" + joinQueries(c.Any, " OR ", "") + ")"
	default:
		return "(" + joinQueries(c.All, " AND ", " OR "+joinTokens([]tokens.Token{tokens.Sample})) + ")"
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
