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

// UsernameKey returns the normal form of a username, by which it is unique:
// the comparison form of PRECIS Nickname (RFC 8266). Case, width and surplus
// spaces do not count; spaces within are allowed. The error says what was
// expected.
func UsernameKey(username string) (string, *Error) {
	if key, ok := plainUsername(username); ok {
		return key, nil
	}
	key, err := precis.Nickname.CompareKey(username)
	if err != nil {
		return "", InvalidFieldf("username", "must be letters, digits, symbols and single spaces that RFC 8266 (PRECIS Nickname) allows")
	}
	if n := utf8.RuneCountInString(key); n < MinUsername {
		return "", InvalidFieldf("username", "must have at least %d characters besides surplus spaces", MinUsername)
	}
	return key, nil
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
	// foldLocal is safe for use by several goroutines: folding keeps no state.
	foldLocal = cases.Fold()
	domains   = idna.New(
		idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(true),
		idna.VerifyDNSLength(true), idna.CheckHyphens(true), idna.CheckJoiners(true),
	)
)

// EmailKey returns the normal form of an e-mail address, by which it is unique:
// spaces around it trimmed, the domain by IDNA in lower case (ASCII form), the
// local part in NFC and case-folded. Quoted local parts and address literals are
// not taken. The error says what was expected.
func EmailKey(email string) (string, *Error) {
	trimmed := strings.TrimSpace(email)
	at := strings.LastIndexByte(trimmed, '@')
	if at < 0 {
		return "", invalidEmail("must be an e-mail address, such as name@example.org")
	}
	// The normal form is what is checked: some characters become others in it.
	local, domain := norm.NFC.String(trimmed[:at]), trimmed[at+1:]
	if !validLocal(local) {
		return "", invalidEmail("must have 1 to 64 bytes before the @: letters, digits, single dots inside, and any of !#$%&'*+/=?^_`{|}~-")
	}
	ascii, err := domains.ToASCII(domain)
	if err != nil || ascii == "" || strings.HasSuffix(ascii, ".") {
		return "", invalidEmail("must have a valid domain name after the @, without a dot at its end")
	}
	return foldEmailLocal(local) + "@" + strings.ToLower(ascii), nil
}

func invalidEmail(message string) *Error {
	return Invalid(Violation{Field: "email", Message: message, Rule: "string.email"})
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
	for i := range len(local) {
		if local[i] >= utf8.RuneSelf {
			// Folding turns Cherokee letters of either case into the other one's;
			// lower case after it makes them the same, and leaves all others alone.
			return norm.NFC.String(strings.ToLower(foldLocal.String(norm.NFC.String(local))))
		}
	}
	return strings.ToLower(local)
}
