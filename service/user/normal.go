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

// NamesVersion is the version of the rules in Sanitize, UsernameKey and EmailKey. Stores normalize all names again when it
// has changed.
const NamesVersion = 1

// Sanitize removes invisible characters and surrounding white space from a username or an
// e-mail address. The result is stored and displayed.
func Sanitize(name string) string { return strings.TrimSpace(removeInvisible(name)) }

// normalize sanitizes the names in a set and returns their normal forms.
func (u *User) normalize(set FieldSet) (keys Keys, violations []Violation) {
	normalize := func(field FieldSet, name, key *string, normal func(string) (string, *Error)) {
		if set&field == 0 {
			return
		}
		*name = Sanitize(*name)
		var err *Error
		if *key, err = normal(*name); err != nil {
			violations = append(violations, err.Violations...)
		}
	}
	normalize(usernameField, &u.Username, &keys.Username, UsernameKey)
	normalize(emailField, &u.Email, &keys.Email, EmailKey)
	return keys, violations
}

// removeInvisible returns invalid UTF-8 unchanged: validation rejects it.
func removeInvisible(text string) string {
	if isASCII(text) || !utf8.ValidString(text) {
		return text
	}
	return strings.Map(func(r rune) rune {
		if isInvisible(r) {
			return -1
		}
		return r
	}, text)
}

// isInvisible reports whether r has the property Default_Ignorable_Code_Point: zero-width
// characters, byte order marks, bidi controls, variation selectors, fillers. It is false for
// unassigned characters, which validation rejects.
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
	return unicode.In(r, unicode.Cf, unicode.L, unicode.M) // assigned
}

// UsernameKey returns the normal form under which a username is unique: the comparison form
// of PRECIS Nickname (RFC 8266) with full case folding. It ignores case, width, surplus
// spaces and invisible characters.
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
		return "", NewFieldErrorf("username", "must have at least %d characters, not counting surplus spaces", MinUsername)
	}
	return key, nil
}

func nicknameKey(name string) (string, *Error) {
	key, err := precis.Nickname.CompareKey(name)
	if err != nil {
		return "", NewFieldErrorf("username", "must consist of letters, digits, symbols and single spaces allowed by RFC 8266 (PRECIS Nickname)")
	}
	if !isASCII(key) {
		key = fold(key, norm.NFKC)
	}
	return key, nil
}

// fold returns the full case folding of text in a normalization form. RFC 8266 uses lower
// case instead, which distinguishes "ß" from "ss" and final sigma from sigma.
func fold(text string, form norm.Form) string {
	for range 4 { // two rounds suffice for every character, see the tests
		// Folding swaps the case of Cherokee letters. Lower case unifies them and does
		// not change any other folded letter.
		folded := form.String(strings.ToLower(fullFold.String(form.String(text))))
		if folded == text {
			break
		}
		text = folded
	}
	return text
}

// plainUsername is the fast path: the normal form of printable ASCII with single inner spaces
// is its lower case.
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
	// fullFold is stateless, so it is safe for concurrent use.
	fullFold = cases.Fold()
	domains  = idna.New(
		idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(true),
		idna.VerifyDNSLength(true), idna.CheckHyphens(true), idna.CheckJoiners(true),
	)
)

// EmailKey returns the normal form under which an e-mail address is unique: sanitized, the
// domain in lower-case ASCII (IDNA), the local part in NFC and case-folded. Quoted local parts
// and address literals are rejected.
func EmailKey(email string) (string, *Error) {
	trimmed := Sanitize(email)
	at := strings.LastIndexByte(trimmed, '@')
	if at < 0 {
		return "", newEmailError("must be an e-mail address, such as name@example.org")
	}
	// Validate the normal form: normalization changes some characters.
	local, domain := norm.NFC.String(trimmed[:at]), trimmed[at+1:]
	if !validLocal(local) {
		return "", newEmailError("must have 1 to 64 bytes before the @: letters, digits, single inner dots, and any of !#$%&'*+/=?^_`{|}~-")
	}
	ascii, err := domainToASCII(domain)
	if err != nil || ascii == "" || strings.HasSuffix(ascii, ".") {
		return "", newEmailError("must have a valid domain name after the @, without a trailing dot")
	}
	return foldEmailLocal(local) + "@" + strings.ToLower(ascii), nil
}

func domainToASCII(domain string) (string, error) {
	if isPlainDomain(domain) {
		return strings.ToLower(domain), nil
	}
	return domains.ToASCII(domain)
}

// isPlainDomain is the fast path: the ASCII form of labels of letters and digits is their lower case.
func isPlainDomain(s string) bool {
	const maxLabel, maxDomain = 63, 253
	label := 0 // length
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			label++
		case c == '.' && 0 < label && label <= maxLabel:
			label = 0
		default:
			return false
		}
	}
	return 0 < label && label <= maxLabel && len(s) <= maxDomain
}

func newEmailError(message string) *Error {
	return NewInvalidError(Violation{Field: "email", Message: message, Rule: "string.email"})
}

// validLocal reports whether local is a dot-atom (RFC 5322, 3.2.3; RFC 6532).
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
