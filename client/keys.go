package client

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/cases"
	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"
)

// The normal forms under which the server compares usernames and e-mail addresses, for the lookups of a Mirror. A test
// compares them with those of the server.

var (
	fullFold = cases.Fold() // stateless
	domains  = idna.New(
		idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(true),
		idna.VerifyDNSLength(true), idna.CheckHyphens(true), idna.CheckJoiners(true),
	)
)

// usernameKey returns the normal form of a username: PRECIS Nickname (RFC 8266) with full case folding. It reports
// false for a text that is no username.
func usernameKey(username string) (string, bool) {
	username = sanitize(username)
	if isPlain(username, " ") {
		return strings.ToLower(username), true
	}
	key, err := precis.Nickname.CompareKey(username)
	if err != nil {
		return "", false
	}
	return fold(key, norm.NFKC), true
}

// emailKey returns the normal form of an e-mail address: the domain in lower-case ASCII (IDNA), the local part in NFC
// and case-folded. It reports false for a text that is no e-mail address.
func emailKey(email string) (string, bool) {
	email = sanitize(email)
	at := strings.LastIndexByte(email, '@')
	if at < 0 {
		return "", false
	}
	ascii := email[at+1:]
	if !isPlain(ascii, ".") {
		var err error
		if ascii, err = domains.ToASCII(ascii); err != nil {
			return "", false
		}
	}
	return fold(norm.NFC.String(email[:at]), norm.NFC) + "@" + strings.ToLower(ascii), true
}

// isPlain reports whether a text consists of words of 1 to 63 ASCII letters and digits, with one separator between two: the normal
// form of such a username, or of such a domain of at most 253 bytes, is its lower case.
func isPlain(text, separator string) bool {
	const maxWord, maxText = 63, 253
	word := 0 // length
	for i := range len(text) {
		switch c := text[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			word++
		case c == separator[0] && 0 < word && word <= maxWord:
			word = 0
		default:
			return false
		}
	}
	return 0 < word && word <= maxWord && len(text) <= maxText
}

// fold returns the full case folding in a normalization form.
func fold(text string, form norm.Form) string {
	if !strings.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return strings.ToLower(text)
	}
	for range 4 { // two rounds suffice for every character
		folded := form.String(strings.ToLower(fullFold.String(form.String(text))))
		if folded == text {
			break
		}
		text = folded
	}
	return text
}

// sanitize removes invisible characters and surrounding white space.
func sanitize(text string) string {
	if utf8.ValidString(text) {
		text = strings.Map(func(r rune) rune {
			if invisible(r) {
				return -1
			}
			return r
		}, text)
	}
	return strings.TrimSpace(text)
}

// invisible reports whether r is an assigned character with the property Default_Ignorable_Code_Point.
func invisible(r rune) bool {
	if r < 0xAD || !unicode.In(r, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point) {
		return false
	}
	switch {
	case unicode.In(r, unicode.White_Space, unicode.Prepended_Concatenation_Mark),
		0xFFF9 <= r && r <= 0xFFFB,   // interlinear annotations
		0x13430 <= r && r <= 0x13440: // Egyptian hieroglyph format controls
		return false
	}
	return unicode.In(r, unicode.Cf, unicode.L, unicode.M)
}
