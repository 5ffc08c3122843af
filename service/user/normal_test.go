package user_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/cases"
	"golang.org/x/text/language"
	"golang.org/x/text/secure/precis"
	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/user"
)

func TestUsernameKey(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{
		{"lower case", "Ann Miller", "ann miller"},
		{"inner spaces", "Ann   Miller", "ann miller"},
		{"outer spaces", "  ann  ", "ann"},
		{"other spaces", "ann\u00a0miller", "ann miller"},
		{"width", "ＡＮＮ", "ann"},
		{"composition", "Zoe\u0308", "zoë"},
		{"symbols", "a*b#c!", "a*b#c!"},
		{"not Latin", "ΣΊΣΥΦΟΣ", "σίσυφοσ"},
		{"final sigma", "Παππας", "παππασ"},
		{"final sigma, upper case", "ΠΑΠΠΑΣ", "παππασ"},
		{"sharp s", "Straße", "strasse"},
		{"capital sharp s", "STRAẞE", "strasse"},
		{"ligature", "ﬃne", "ffine"},
		{"dotted capital i", "İstanbul", "i\u0307stanbul"},
		{"iota below", "ᾼνθος", "αινθοσ"},
		{"Cherokee", "\u13a0\uab70\u13f8", "\uab70\uab70\u13f8"},
		{"invisible characters", "\ufeffa\u200bn\u00adn\u2060a\u202e", "anna"},
		{"white space and invisible characters around", " \u200b\u3000anna\u2066\r\n", "anna"},
		{"fillers", "\u3164an\u115fna\uffa0", "anna"},
		{"variation selector", "ann\ufe0fa", "anna"},
		{"joiner that Persian writes", "نام\u200cخانوادگی", "نامخانوادگی"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := user.UsernameKey(test.in)
			if err != nil || got != test.want {
				t.Errorf("UsernameKey() = %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

func TestUsernameKeyRejects(t *testing.T) {
	for name, in := range map[string]string{
		"empty":                "",
		"two characters":       "ab",
		"spaces only":          "     ",
		"short without spaces": "  ab  ",
		"control character":    "ann\x00bob",
		"new line":             "ann\nbob",
		"not UTF-8":            "ann\xffbob",
		"unassigned":           "ann\U000E0080",
		"two visible":          "a\u200bb",
		"one that becomes two": "a\ufb01",
		"invisible only":       "\u200b\u200c\u200d\u2060",
		"line separator":       "ann\u2028bob",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := user.UsernameKey(in)
			if err == nil || len(err.Violations) != 1 || err.Violations[0].Field != "username" {
				t.Errorf("UsernameKey() error = %v, want one violation of username", err)
			}
		})
	}
}

// The fast path for ASCII names must agree with PRECIS.
func TestUsernameKeyOfASCIIEqualsPRECIS(t *testing.T) {
	for c := ' '; c <= '~'; c++ {
		checkASCIIUsername(t, "x"+string(c)+"y")
		checkASCIIUsername(t, string(c)+"ab"+string(c))
	}
	rapid.Check(t, func(t *rapid.T) {
		checkASCIIUsername(t, rapid.StringMatching(`[ -~]{0,70}`).Draw(t, "username"))
	})
}

type failer interface {
	Helper()
	Errorf(format string, args ...any)
}

func checkASCIIUsername(t failer, s string) {
	t.Helper()
	got, err := user.UsernameKey(s)
	want, precisErr := precis.Nickname.CompareKey(s)
	if precisErr != nil || len(want) < user.MinUsername {
		if err == nil {
			t.Errorf("UsernameKey(%q) = %q, want an error", s, got)
		}
		return
	}
	if err != nil || got != want {
		t.Errorf("UsernameKey(%q) = %q, %v, want %q as of PRECIS", s, got, err, want)
	}
}

func TestUsernameKeyIsIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(rapid.String(), rapid.StringMatching(`[A-Za-z ßÉéÄΣςσＡ　ǅﬁ1-9]{3,20}`)).Draw(t, "username")
		key, err := user.UsernameKey(name)
		if err != nil {
			t.Skip("no username")
		}
		if again, err := user.UsernameKey(key); err != nil || again != key {
			t.Errorf("%q: key %q, its key %q, %v", name, key, again, err)
		}
	})
}

func TestEmailKey(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{
		{"plain", "ann@example.org", "ann@example.org"},
		{"lower case", "Ann.Miller@Example.ORG", "ann.miller@example.org"},
		{"spaces around", " \tann@example.org\n", "ann@example.org"},
		{"IDN", "ann@MÜNCHEN.example", "ann@xn--mnchen-3ya.example"},
		{"IDN in ASCII", "ann@XN--mnchen-3ya.example", "ann@xn--mnchen-3ya.example"},
		{"ideographic dot", "ann@example。org", "ann@example.org"},
		{"folded local part", "STRAßE@example.org", "strasse@example.org"},
		{"composed local part", "zoe\u0308@example.org", "zoë@example.org"},
		{"final sigma", "Παππας@example.org", "παππασ@example.org"},
		{"dotted capital i", "İ@example.org", "i\u0307@example.org"},
		{"byte order mark", "\ufeffann@example.org", "ann@example.org"},
		{"invisible in the local part", "a\u200bn\u034fn@example.org", "ann@example.org"},
		{"invisible in the domain", "ann@exam\u00adple.org\u200e", "ann@example.org"},
		{"invisible and spaces around", "\u2067 ann@example.org \u2069\r\n", "ann@example.org"},
		{"folded Cherokee", "\u13a0\uab70@example.org", "\uab70\uab70@example.org"},
		{"all atom characters", "!#$%&'*+/=?^_`{|}~-AZaz09@example.org", "!#$%&'*+/=?^_`{|}~-azaz09@example.org"},
		{"longest local part", strings.Repeat("a", 64) + "@b.example", strings.Repeat("a", 64) + "@b.example"},
		{"a single label", "root@localhost", "root@localhost"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := user.EmailKey(test.in)
			if err != nil || got != test.want {
				t.Errorf("EmailKey() = %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

// The fast path for ASCII domains must agree with IDNA.
func TestEmailKeyOfASCIIDomainEqualsIDNA(t *testing.T) {
	domains := idna.New(
		idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(true),
		idna.VerifyDNSLength(true), idna.CheckHyphens(true), idna.CheckJoiners(true),
	)
	check := func(t failer, domain string) {
		t.Helper()
		got, err := user.EmailKey("a@" + domain)
		want, idnaErr := domains.ToASCII(domain)
		if valid := idnaErr == nil && want != "" && !strings.HasSuffix(want, "."); valid != (err == nil) || valid && got != "a@"+want {
			t.Errorf("EmailKey(a@%s) = %q, %v, want the domain %q, %v as of IDNA", domain, got, err, want, idnaErr)
		}
	}
	label := strings.Repeat("x", 63)
	long := label + "." + label + "." + label + "."
	for _, domain := range []string{"", ".", "a", "A.B", "a.", ".a", "a..b", label, label + "x", long + label[:61], long + label[:62], long + label} {
		check(t, domain)
	}
	rapid.Check(t, func(t *rapid.T) {
		check(t, rapid.StringMatching(`[a-zA-Z0-9.-]{0,20}|([A-Za-z0-9]{60,64}\.){1,5}[a-z]{1,64}`).Draw(t, "domain"))
	})
}

func TestEmailKeyRejects(t *testing.T) {
	for name, in := range map[string]string{
		"empty":                "",
		"no at":                "example.org",
		"no local part":        "@example.org",
		"no domain":            "ann@",
		"two ats":              "ann@bob@example.org",
		"space inside":         "ann miller@example.org",
		"dot first":            ".ann@example.org",
		"dot last":             "ann.@example.org",
		"mapped semicolon":     "ann\u037e@example.org",
		"two dots":             "ann..miller@example.org",
		"quoted":               `"ann"@example.org`,
		"address literal":      "ann@[192.0.2.1]",
		"empty label":          "ann@example..org",
		"dot at the end":       "ann@example.org.",
		"mapped dot":           "ann@example.org。",
		"hyphen first":         "ann@-example.org",
		"underscore in label":  "ann@exa_mple.org",
		"long label":           "ann@" + strings.Repeat("a", 64) + ".org",
		"long local part":      strings.Repeat("a", 65) + "@example.org",
		"not UTF-8":            "a\xffb@example.org",
		"control character":    "a\u0085b@example.org",
		"no-break space":       "a\u00a0b@example.org",
		"line break inside":    "ann\n@example.org",
		"line break in domain": "ann@example.org\nbcc: x",
		"NUL":                  "ann\x00@example.org",
		"NUL at the end":       "ann@example.org\x00",
	} {
		t.Run(name, func(t *testing.T) {
			key, err := user.EmailKey(in)
			if err == nil || len(err.Violations) != 1 || err.Violations[0].Field != "email" {
				t.Errorf("EmailKey() = %q, %v, want one violation of email", key, err)
			}
		})
	}
}

func TestEmailKeyIsIdempotent(t *testing.T) {
	local := rapid.OneOf(rapid.String(), rapid.StringMatching(`[A-Za-z.ßÉéÄΣςσＡǅﬁ+_-]{1,20}`))
	rapid.Check(t, func(t *rapid.T) {
		address := local.Draw(t, "local part") + "@" + rapid.StringMatching(`[A-Za-zäÜß]{1,8}\.(ORG|org|example)`).Draw(t, "domain")
		key, err := user.EmailKey(address)
		if err != nil {
			t.Skip("no e-mail address")
		}
		if strings.IndexByte(key, '@') > user.MaxEmailLocal {
			t.Skip("folding has made it too long to be written so")
		}
		if again, err := user.EmailKey(key); err != nil || again != key {
			t.Errorf("%q: key %q, its key %q, %v", address, key, again, err)
		}
	})
}

func TestUsernamePrefix(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{
		{"empty", "", ""},
		{"spaces only", "  ", ""},
		{"one letter", "A", "a"},
		{"space at the end", "Ann ", "ann "},
		{"several", "Ann \u00a0", "ann "},
		{"spaces before", "  ann", "ann"},
		{"width", "ＡＮ", "an"},
		{"sigma", "ΑΣ", "ασ"},
		{"final sigma", "Παππας", "παππασ"},
		{"sharp s", "Straß", "strass"},
		{"invisible characters", "\ufeffA\u200bn", "an"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := user.UsernamePart(test.in, true, false)
			if err != nil || got != test.want {
				t.Errorf("UsernamePart() = %q, %v, want %q", got, err, test.want)
			}
		})
	}
	if got, err := user.UsernamePart("a\x00", true, false); err == nil {
		t.Errorf("UsernamePart() with a control character = %q, want an error", got)
	}
}

func TestUsernameKeyStartsWithPrefixKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[A-Za-z ßÄΣςＡ]{3,20}`).Draw(t, "username")
		key, err := user.UsernameKey(name)
		if err != nil {
			t.Skip("no username")
		}
		end := rapid.IntRange(0, len(name)).Draw(t, "end")
		for end < len(name) && !utf8.RuneStart(name[end]) {
			end++
		}
		prefix, err := user.UsernamePart(name[:end], true, false)
		if err != nil {
			t.Fatalf("prefix %q: %v", name[:end], err)
		}
		if !strings.HasPrefix(key+" ", prefix) { // spaces at its end are not in the key
			t.Errorf("%q: key %q does not start with %q, the key of the prefix %q", name, key, prefix, name[:end])
		}
	})
}

func TestUsernameKeyIgnoresCase(t *testing.T) {
	upper, lower := cases.Upper(language.Und), cases.Lower(language.Und, cases.HandleFinalSigma(true))
	for r := rune(' '); r <= unicode.MaxRune; r++ {
		if unicode.In(r, unicode.Han, unicode.Hangul) || !unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.S) {
			continue // has no case
		}
		name := "a" + string(r) + "b" + string(r)
		key, err := user.UsernameKey(name)
		if err != nil {
			continue
		}
		if again, err := user.UsernameKey(key); err != nil || again != key {
			t.Errorf("UsernameKey(%q) = %q, %v, want itself", key, again, err)
		}
		others := []string{upper.String(name), lower.String(name)}
		for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
			others = append(others, "a"+string(other)+"b"+string(other))
		}
		for _, other := range others {
			if got, err := user.UsernameKey(other); err == nil && got != key && !caseNotReversible(r) {
				t.Errorf("UsernameKey(%q) = %q, want %q as for %q", other, got, key, name)
			}
		}
	}
}

// caseNotReversible reports whether the upper or lower case of r is also that of a character
// that case folding keeps distinct.
func caseNotReversible(r rune) bool {
	return r == 'ı' // its upper case is I, whose folding is i
}

func TestSanitize(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"ann", "ann"},
		{" Ann  Miller\r\n", "Ann  Miller"},
		{"\u200b \ufeffÄnn\u2028", "Änn"},
		{"\u0600ann", "\u0600ann"}, // an Arabic number sign is visible
		{"x\ufff9\ufffb\U00013430\U00013440", "x\ufff9\ufffb\U00013430\U00013440"}, // so are annotations and hieroglyph controls
		{"a\xffb ", "a\xffb"},
	} {
		if got := user.Sanitize(test.in); got != test.want {
			t.Errorf("Sanitize(%q) = %q, want %q", test.in, got, test.want)
		}
	}
	ignorable := []rune{0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180E, 0x180F, 0x200B, 0x200F, 0x202A,
		0x202E, 0x2060, 0x2064, 0x2066, 0x206F, 0x3164, 0xFE00, 0xFE0F, 0xFEFF, 0xFFA0, 0x1BCA0, 0x1D173, 0xE0001, 0xE0020, 0xE007F, 0xE0100, 0xE01EF}
	for _, r := range ignorable {
		if got := user.Sanitize("x" + string(r) + "y" + string(r)); got != "xy" {
			t.Errorf("Sanitize() with U+%04X = %q, want it removed", r, got)
		}
	}
}

func TestSanitizeIsIdempotentAndKeepsKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{" ", "\n", "\u200b", "\ufeff", "\u3164", "a"}))
		name := part.Draw(t, "1") + part.Draw(t, "2") + part.Draw(t, "3")
		shown := user.Sanitize(name)
		if again := user.Sanitize(shown); again != shown {
			t.Errorf("Sanitize(%q) = %q, want itself", shown, again)
		}
		key, err := user.UsernameKey(name)
		if got, again := user.UsernameKey(shown); got != key || (err == nil) != (again == nil) {
			t.Errorf("UsernameKey(%q) = %q, %v, want that of the sanitized name: %q, %v", name, key, err, got, again)
		}
	})
}

func TestEmailPrefix(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{
		{"empty", "", ""},
		{"local part", " Ann.M", "ann.m"},
		{"folded", "STRAß", "strass"},
		{"at", "Ann@", "ann@"},
		{"domain", "ann@Exam", "ann@exam"},
		{"complete label", "ann@MÜNCHEN.", "ann@xn--mnchen-3ya."},
		{"behind a label", "ann@MÜNCHEN.Ex", "ann@xn--mnchen-3ya.ex"},
		{"invisible characters", "\u2060 a\u200bnn@exam", "ann@exam"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := user.EmailPart(test.in, true, false)
			if err != nil || got != test.want {
				t.Errorf("EmailPart() = %q, %v, want %q", got, err, test.want)
			}
		})
	}
	for name, in := range map[string]string{
		"within a label outside ASCII": "ann@mün",
		"empty label":                  "ann@a..b",
		"underscore in label":          "ann@a_b.c",
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := user.EmailPart(in, true, false); err == nil {
				t.Errorf("EmailPart() = %q, want an error", got)
			}
		})
	}
}
