package user_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/user"
)

func TestPart(t *testing.T) {
	for _, test := range []struct {
		name       string
		part       func(string, bool, bool) (string, *user.Error)
		in         string
		start, end bool
		want       string
	}{
		{"inner part of a username", user.UsernamePart, " n \u00a0", false, false, " n "},
		{"end of a username", user.UsernamePart, " Müller ", false, true, " müller"},
		{"whole username", user.UsernamePart, " Ann ", true, true, "ann"},
		{"width", user.UsernamePart, "ＮＮ", false, false, "nn"},
		{"inner part of an address", user.EmailPart, "N@Exam", false, false, "n@exam"},
		{"part of a local part", user.EmailPart, "Äö", false, false, "äö"},
		{"end of an address", user.EmailPart, "@MÜNCHEN.Example ", false, true, "@xn--mnchen-3ya.example"},
		{"end of a domain", user.EmailPart, "Ple.ORG", false, true, "ple.org"},
		{"end of a domain outside ASCII", user.EmailPart, "x.MÜNCHEN.de", false, true, "x.xn--mnchen-3ya.de"},
		{"end of a domain, complete labels", user.EmailPart, ".MÜNCHEN.de", false, true, ".xn--mnchen-3ya.de"},
		{"other full stops", user.EmailPart, "n@Exam\u3002org\uff0ex", false, false, "n@exam.org.x"},
		{"end with other full stops", user.EmailPart, "Ple\uff61ORG", false, true, "ple.org"},
		{"at", user.EmailPart, "ann@", false, false, "ann@"},
		{"start of an address", user.EmailPart, " Ann ", true, false, "ann "},
		{"inner part with spaces", user.EmailPart, " Ann ", false, false, " ann "},
	} {
		if got, err := test.part(test.in, test.start, test.end); err != nil || got != test.want {
			t.Errorf("%s: part %q = %q, %v, want %q", test.name, test.in, got, err, test.want)
		}
	}
	for _, in := range []string{"ünchen.de", "a@.", "@a..b"} {
		if got, err := user.EmailPart(in, false, true); err == nil {
			t.Errorf("EmailPart(%q) = %q, want an error", in, got)
		}
	}
}

// The key of a name contains the normal form of each of its parts.
func TestKeyContainsPart(t *testing.T) {
	type normal struct {
		values string
		key    func(string) (string, *user.Error)
		part   func(string, bool, bool) (string, *user.Error)
	}
	for name, n := range map[string]normal{
		"username": {`[A-Za-z ßÄΣςＡ]{3,20}`, user.UsernameKey, user.UsernamePart},
		"email":    {`[A-Za-zßÄΣς]{1,6}@[a-zA-Z]{1,6}\.[A-Za-z]{2,3}`, user.EmailKey, user.EmailPart},
	} {
		t.Run(name, rapid.MakeCheck(func(t *rapid.T) {
			value := rapid.StringMatching(n.values).Draw(t, "value")
			key, err := n.key(value)
			if err != nil {
				t.Skip("not valid")
			}
			from := rapid.IntRange(0, len(value)).Draw(t, "from")
			to := rapid.IntRange(from, len(value)).Draw(t, "to")
			if !utf8.ValidString(value[from:to]) {
				t.Skip("not a part")
			}
			start, end := from == 0, to == len(value)
			part, err := n.part(value[from:to], start, end)
			// Spaces at the ends of a name are not in the key.
			contains := strings.Contains(" "+key+" ", part) && (!start || strings.HasPrefix(key+" ", part)) && (!end || strings.HasSuffix(" "+key, part))
			if err != nil || !contains {
				t.Errorf("%q has the key %q, and its part %q the normal form %q, %v", value, key, value[from:to], part, err)
			}
		}))
	}
}
