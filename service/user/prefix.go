package user

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// UsernamePrefix returns the normal form of a username prefix: the key of each username that
// starts with prefix, ignoring case, width and surplus spaces, starts with the result.
func UsernamePrefix(prefix string) (string, *Error) {
	prefix = removeInvisible(prefix)
	inner := strings.TrimRightFunc(prefix, isNicknameSpace)
	if strings.TrimLeftFunc(inner, isNicknameSpace) == "" {
		return "", nil
	}
	key, err := nicknameKey(inner)
	if err != nil {
		return "", err
	}
	if len(inner) < len(prefix) {
		key += " " // a trailing space of a prefix is an inner space of the name
	}
	return key, nil
}

// isNicknameSpace reports whether RFC 8266 maps r to a space.
func isNicknameSpace(r rune) bool { return unicode.Is(unicode.Zs, r) }

// EmailPrefix returns the normal form of a prefix of an e-mail address. Domain labels
// followed by a dot are converted by IDNA. An incomplete last label must be ASCII, because
// the ASCII form of a prefix of a label is not a prefix of the ASCII form of the label.
func EmailPrefix(prefix string) (string, *Error) {
	local, domain, inDomain := cutLast(strings.TrimLeftFunc(removeInvisible(prefix), unicode.IsSpace), "@")
	if !inDomain {
		return foldEmailLocal(domain), nil
	}
	labels, last, more := cutLast(domain, ".")
	if !isASCII(last) {
		return "", newEmailError("must not end inside a domain label with non-ASCII characters")
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

// cutLast splits s at the last sep. Without a sep, before is empty.
func cutLast(s, sep string) (before, after string, found bool) {
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
