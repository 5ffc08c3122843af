package auth

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"net/url"
	"strings"
	"time"
)

const certificatePrefix = "cert:"

// caller returns the caller identified by the client certificate of a connection. Errors
// are of type *RefusedError.
//
// The TLS layer must have verified a chain, and the current CAs must still trust it. The
// identity is the first name that a rule matches, URIs before DNS names, in the order of
// the certificate. If no rule matches, it is the first name, without permissions. The
// common name, IP addresses and e-mail addresses are not used.
func (r *CertificateRules) caller(state *tls.ConnectionState, now time.Time) (Caller, error) {
	if len(state.VerifiedChains) == 0 {
		return Caller{}, newRefusedError(CauseUnverified, nil)
	}
	from, until := validity(state.VerifiedChains)
	// The certificate may have expired since the handshake, or the CA that replaced its issuer since it was verified.
	switch {
	case !now.Before(until):
		return Caller{}, newRefusedError(CauseExpired, nil)
	case now.Before(from):
		return Caller{}, newRefusedError(CauseNotYetValid, nil)
	}
	if !r.trusts(state.PeerCertificates, &until, now) {
		return Caller{}, newRefusedError(CauseUnverified, errDistrusted)
	}
	if !now.Before(until) {
		return Caller{}, newRefusedError(CauseExpired, nil)
	}
	rules, ok := r.get()
	if !ok {
		return Caller{}, newRefusedError(CauseUnverified, r.Err())
	}
	names := namesOf(state.VerifiedChains[0][0])
	if len(names) == 0 {
		return Caller{}, newRefusedError(CauseNoName, nil)
	}
	caller := Caller{Kind: Certificate, Subject: certificatePrefix + names[0].text, Expires: until}
	for _, name := range names {
		if permissions, ok := rules.match(name); ok {
			caller.Subject, caller.Permissions = certificatePrefix+name.text, permissions
			break
		}
	}
	return caller, nil
}

// errDistrusted reports a certificate that the CAs trusted at the handshake but no longer do.
var errDistrusted = errors.New("certificate is not trusted by the current client CAs")

type verdict struct {
	trusted bool
	until   time.Time
}

// trusts reports whether the current CAs trust the presented chain, and sets until to its
// expiry. The CAs may have changed since the handshake. Results are cached for each pool.
func (r *CertificateRules) trusts(presented []*x509.Certificate, until *time.Time, now time.Time) bool {
	if r.authorities == nil || len(presented) == 0 {
		return true
	}
	pool := r.authorities()
	sum := sha256.New()
	for _, c := range presented {
		_, _ = sum.Write(c.Raw) // never fails
	}
	key := [sha256.Size]byte(sum.Sum(nil))
	found := r.cache.get(key, pool)
	if found == nil {
		found = verify(presented, pool, now)
		r.cache.put(key, pool, found)
	}
	*until = found.until
	return found.trusted
}

func verify(presented []*x509.Certificate, pool *x509.CertPool, now time.Time) *verdict {
	intermediates := x509.NewCertPool()
	for _, c := range presented[1:] {
		intermediates.AddCert(c)
	}
	chains, err := presented[0].Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return new(verdict)
	}
	_, until := validity(chains)
	return &verdict{trusted: true, until: until}
}

// validity returns the validity period of the chain that expires last. A chain is valid
// while all of its certificates are.
func validity(chains [][]*x509.Certificate) (from, until time.Time) {
	for _, chain := range chains {
		first, last := chain[0].NotBefore, chain[0].NotAfter
		for _, c := range chain[1:] {
			if c.NotBefore.After(first) {
				first = c.NotBefore
			}
			if c.NotAfter.Before(last) {
				last = c.NotAfter
			}
		}
		if last.After(until) {
			from, until = first, last
		}
	}
	return from, until
}

// certificateName is a name in the form that patterns are matched with.
type certificateName struct {
	text  string
	dns   bool
	parts []string
}

func validName(text string) bool {
	return ValidSubject(text) && len(certificatePrefix)+len(text) <= maxSubjectBytes
}

func namesOf(c *x509.Certificate) []certificateName {
	var names []certificateName
	raw := rawURIs(c)
	for i, u := range c.URIs {
		if name, ok := uriName(u); ok && i < len(raw) && matchesRaw(raw[i], name.text, len(u.Scheme)+len("://")+len(u.Host)) {
			names = append(names, name)
		}
	}
	for _, dns := range c.DNSNames {
		// A wildcard name does not identify one caller.
		if name, ok := dnsName(dns); ok && !strings.Contains(dns, "*") {
			names = append(names, name)
		}
	}
	return names
}

// uriName splits a URI at its slashes into scheme and host and the path segments. A URI with
// user info, a query or a fragment is rejected (as in SPIFFE), and so is one whose path has
// more than one spelling.
func uriName(u *url.URL) (certificateName, bool) {
	if u.Scheme == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return certificateName{}, false
	}
	name := certificateName{text: strings.ToLower(u.Scheme) + ":" + u.Opaque}
	if u.Opaque == "" {
		name.text = strings.ToLower(u.Scheme+"://"+u.Host) + u.EscapedPath()
	}
	name.parts = strings.Split(name.text, "/")
	for _, part := range name.parts[min(3, len(name.parts)):] {
		if part == "" || part == "." || part == ".." {
			return certificateName{}, false
		}
	}
	return name, !strings.Contains(name.text, "%") && validName(name.text)
}

// matchesRaw reports whether the raw URI equals name, ignoring the case of the first n bytes
// (scheme and host). url.Parse drops parts such as an empty fragment, so that two different
// certificates could otherwise get the same name.
func matchesRaw(raw, name string, first int) bool {
	first = min(first, len(raw))
	return len(raw) == len(name) && raw[first:] == name[first:] && strings.EqualFold(raw[:first], name[:first])
}

// subjectAlternativeName is the extension that holds the names of a certificate (RFC 5280,
// section 4.2.1.6). uriTag is the tag of a URI in it.
var subjectAlternativeName = asn1.ObjectIdentifier{2, 5, 29, 17}

const uriTag = 6

// rawURIs returns the URIs of a certificate as encoded in it, in the order of c.URIs. A
// certificate without raw bytes falls back to the parsed URIs.
func rawURIs(c *x509.Certificate) (uris []string) {
	if len(c.Raw) == 0 {
		for _, u := range c.URIs {
			uris = append(uris, u.String())
		}
		return uris
	}
	for _, extension := range c.Extensions {
		if !extension.Id.Equal(subjectAlternativeName) {
			continue
		}
		var names []asn1.RawValue
		if _, err := asn1.Unmarshal(extension.Value, &names); err != nil {
			return nil
		}
		for _, name := range names {
			if name.Class == asn1.ClassContextSpecific && name.Tag == uriTag {
				uris = append(uris, string(name.Bytes))
			}
		}
	}
	return uris
}

func dnsName(s string) (certificateName, bool) {
	text := strings.ToLower(strings.TrimSuffix(s, "."))
	name := certificateName{text: text, dns: true, parts: strings.Split(text, ".")}
	for _, part := range name.parts {
		if part == "" {
			return certificateName{}, false
		}
	}
	return name, validName(text)
}
