package user

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// UsernamePart returns the normal form of a part of a username: the key of each username that contains the
// part contains the result, ignoring case, width and surplus spaces. start and end state that the part is the
// start and the end of the username.
func UsernamePart(part string, start, end bool) (string, *Error) {
	part = removeInvisible(part)
	inner := strings.TrimRightFunc(part, isNicknameSpace)
	endsWithSpace := len(inner) < len(part)
	part, inner = inner, strings.TrimLeftFunc(inner, isNicknameSpace)
	if inner == "" {
		return "", nil
	}
	key, err := nicknameKey(inner)
	if err != nil {
		return "", err
	}
	if !start && len(inner) < len(part) {
		key = " " + key
	}
	if !end && endsWithSpace {
		key += " " // an inner space of the name
	}
	return key, nil
}

// isNicknameSpace reports whether RFC 8266 maps r to a space.
func isNicknameSpace(r rune) bool { return unicode.Is(unicode.Zs, r) }

// EmailPart returns the normal form of a part of an e-mail address. start and end state that the part is the
// start and the end of the address. Labels of a domain after the @, or at the end, are converted by IDNA. One
// that is not complete must be ASCII, because the ASCII form of a part of a label is not a part of the ASCII
// form of the label.
func EmailPart(part string, start, end bool) (string, *Error) {
	part = removeInvisible(part)
	if start {
		part = strings.TrimLeftFunc(part, unicode.IsSpace)
	}
	if end {
		part = strings.TrimRightFunc(part, unicode.IsSpace)
	}
	local, domain, inDomain := cutLast(part, "@")
	if inDomain || end {
		domain = fullStops.Replace(domain)
	}
	var key, first string // first is the end of a label
	switch {
	case inDomain:
		key = foldEmailLocal(local) + "@"
	case end && !isASCII(domain):
		first, domain, _ = strings.Cut(domain, ".")
		key = strings.ToLower(first) + "."
	default:
		return foldEmailLocal(domain), nil
	}
	labels, last, more := cutLast(domain, ".")
	if end {
		labels, last, more = domain, "", domain != ""
	}
	if !isASCII(first) || !isASCII(last) {
		return "", newEmailError("must not start or end inside a domain label with non-ASCII characters")
	}
	if !more {
		return key + strings.ToLower(last), nil
	}
	ascii, err := domains.ToASCII(labels)
	if err != nil || ascii == "" || strings.HasSuffix(ascii, ".") {
		return "", newEmailError("must have valid domain labels after the @")
	}
	if key += strings.ToLower(ascii); end {
		return key, nil
	}
	return key + "." + strings.ToLower(last), nil
}

// fullStops replaces the characters that IDNA maps to the dot between labels.
var fullStops = strings.NewReplacer("\u3002", ".", "\uff0e", ".", "\uff61", ".")

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
