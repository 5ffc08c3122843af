package user

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/cases"
	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"
)

// Sanitize returns the spelling in which a username or an e-mail address is stored and
// shown: the caller's, without invisible characters and surrounding white space.
func Sanitize(name string) string { return strings.TrimSpace(visible(name)) }

// visible returns a text without invisible characters.
func visible(text string) string {
	if isASCII(text) || !utf8.ValidString(text) { // what is not UTF-8 is refused as it is
		return text
	}
	return strings.Map(func(r rune) rune {
		if isInvisible(r) {
			return -1
		}
		return r
	}, text)
}

// isInvisible reports whether Unicode gives a character the property
// Default_Ignorable_Code_Point: zero-width characters, byte order marks, bidi controls,
// variation selectors, fillers. Unassigned characters are left to be refused.
func isInvisible(r rune) bool {
	if r < 0xAD || !unicode.In(r, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point) {
		return false
	}
	switch {
	case unicode.In(r, unicode.White_Space, unicode.Prepended_Concatenation_Mark),
		0xFFF9 <= r && r <= 0xFFFB,   // interlinear annotations
		0x13430 <= r && r <= 0x13440: // Egyptian hieroglyph format controls
		return false
	}
	return unicode.In(r, unicode.Cf, unicode.L, unicode.M) // it is assigned
}

// UsernameKey returns the normal form of a username, by which it is unique:
// the comparison form of PRECIS Nickname (RFC 8266) with full case folding. Case, width,
// surplus spaces and invisible characters do not count; spaces within are allowed. The
// error says what was expected.
func UsernameKey(username string) (string, *Error) {
	username = Sanitize(username)
	if key, ok := plainUsername(username); ok {
		return key, nil
	}
	key, err := nicknameKey(username)
	if err != nil {
		return "", err
	}
	if min(utf8.RuneCountInString(key), utf8.RuneCountInString(username)) < MinUsername {
		return "", NewFieldErrorf("username", "must have at least %d characters besides surplus spaces", MinUsername)
	}
	return key, nil
}

func nicknameKey(name string) (string, *Error) {
	key, err := precis.Nickname.CompareKey(name)
	if err != nil {
		return "", NewFieldErrorf("username", "must be letters, digits, symbols and single spaces that RFC 8266 (PRECIS Nickname) allows")
	}
	if !isASCII(key) {
		key = fold(key, norm.NFKC)
	}
	return key, nil
}

// fold returns the full case folding of a text in a normalization form. The profile of
// RFC 8266 has lower case instead, which keeps "ß" and final sigma apart from "ss" and
// sigma.
func fold(text string, form norm.Form) string {
	for range 4 { // two are enough for every character, see the tests
		// Folding turns Cherokee letters of either case into the other one's;
		// lower case after it makes them the same, and leaves all others alone.
		folded := form.String(strings.ToLower(fullFold.String(form.String(text))))
		if folded == text {
			break
		}
		text = folded
	}
	return text
}

// plainUsername is the short way for the usual name: printable ASCII with single
// spaces inside has itself in lower case as its normal form.
func plainUsername(s string) (string, bool) {
	if len(s) < MinUsername || s[0] == ' ' || s[len(s)-1] == ' ' {
		return "", false
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == ' ' && s[i-1] == ' ' {
			return "", false
		}
	}
	return strings.ToLower(s), true
}

var (
	// fullFold is safe for use by several goroutines: folding keeps no state.
	fullFold = cases.Fold()
	domains  = idna.New(
		idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(true),
		idna.VerifyDNSLength(true), idna.CheckHyphens(true), idna.CheckJoiners(true),
	)
)

// EmailKey returns the normal form of an e-mail address, by which it is unique: without
// surrounding white space and invisible characters, the domain by IDNA in lower case
// (ASCII form), the local part in NFC and case-folded. Quoted local parts and address literals are
// not taken. The error says what was expected.
func EmailKey(email string) (string, *Error) {
	trimmed := Sanitize(email)
	at := strings.LastIndexByte(trimmed, '@')
	if at < 0 {
		return "", newEmailError("must be an e-mail address, such as name@example.org")
	}
	// The normal form is what is checked: some characters become others in it.
	local, domain := norm.NFC.String(trimmed[:at]), trimmed[at+1:]
	if !validLocal(local) {
		return "", newEmailError("must have 1 to 64 bytes before the @: letters, digits, single dots inside, and any of !#$%&'*+/=?^_`{|}~-")
	}
	ascii, err := domains.ToASCII(domain)
	if err != nil || ascii == "" || strings.HasSuffix(ascii, ".") {
		return "", newEmailError("must have a valid domain name after the @, without a dot at its end")
	}
	return foldEmailLocal(local) + "@" + strings.ToLower(ascii), nil
}

func newEmailError(message string) *Error {
	return NewInvalidError(Violation{Field: "email", Message: message, Rule: "string.email"})
}

// validLocal checks the part before the @: a dot-atom of RFC 5322, 3.2.3, with the
// letters of RFC 6532.
func validLocal(local string) bool {
	if local == "" || len(local) > MaxEmailLocal || !utf8.ValidString(local) {
		return false
	}
	if strings.HasPrefix(local, ".") || strings.HasSuffix(local, ".") || strings.Contains(local, "..") {
		return false
	}
	for _, r := range local {
		switch {
		case r < utf8.RuneSelf:
			if !isAtomByte(byte(r)) {
				return false
			}
		case !unicode.IsGraphic(r) || unicode.IsSpace(r):
			return false
		}
	}
	return true
}

func isAtomByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte(".!#$%&'*+/=?^_`{|}~-", c) >= 0
}

func foldEmailLocal(local string) string {
	if isASCII(local) {
		return strings.ToLower(local)
	}
	return fold(local, norm.NFC)
}
