package user

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// UsernamePrefix returns the normal form of the beginning of usernames: whoever's
// username begins with prefix, case, width and surplus spaces aside, has a key that
// begins with it. An empty prefix stays empty. The error says what was expected.
func UsernamePrefix(prefix string) (string, *Error) {
	prefix = visible(prefix)
	inner := strings.TrimRightFunc(prefix, isNicknameSpace)
	if strings.TrimLeftFunc(inner, isNicknameSpace) == "" {
		return "", nil
	}
	key, err := nicknameKey(inner)
	if err != nil {
		return "", err
	}
	if len(inner) < len(prefix) {
		key += " " // a space at the end of a beginning is one inside the name
	}
	return key, nil
}

// isNicknameSpace reports what RFC 8266 maps to a space.
func isNicknameSpace(r rune) bool { return unicode.Is(unicode.Zs, r) }

// EmailPrefix returns the normal form of the beginning of e-mail addresses. Where it
// reaches into the domain, labels that are complete, a dot being behind them, are
// compared by IDNA; the last one must be ASCII, for the ASCII form of a label is
// not the beginning of a longer one's. The error says what was expected.
func EmailPrefix(prefix string) (string, *Error) {
	local, domain, inDomain := cutLast(strings.TrimLeftFunc(visible(prefix), unicode.IsSpace), "@")
	if !inDomain {
		return foldEmailLocal(domain), nil
	}
	labels, last, more := cutLast(domain, ".")
	if !isASCII(last) {
		return "", newEmailError("must not end within a domain label that has characters outside ASCII")
	}
	key := foldEmailLocal(local) + "@"
	if more {
		ascii, err := domains.ToASCII(labels)
		if err != nil || ascii == "" || strings.HasSuffix(ascii, ".") {
			return "", newEmailError("must have valid domain labels after the @")
		}
		key += strings.ToLower(ascii) + "."
	}
	return key + strings.ToLower(last), nil
}

// cutLast cuts s around the last sep; without one it is all behind.
func cutLast(s, sep string) (before, behind string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
