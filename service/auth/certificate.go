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

// certificatePrefix begins the subjects of certificates.
const certificatePrefix = "cert:"

// caller returns who the connection's client certificate says is calling. Errors are
// *RefusedError.
//
// Only a chain that the TLS layer has verified counts, and that the present authorities
// would still be good for. The identity is the first name
// that a rule matches, URIs before DNS names, each in the certificate's order; where no
// rule matches it is the first name, who may do nothing. The common name, addresses
// and e-mail addresses are no identity.
func (r *CertificateRules) caller(state *tls.ConnectionState, now time.Time) (Caller, error) {
	if len(state.VerifiedChains) == 0 {
		return Caller{}, refuse(CauseUnverified, nil)
	}
	from, until := validity(state.VerifiedChains)
	// The handshake may be long ago.
	switch {
	case !now.Before(until):
		return Caller{}, refuse(CauseExpired, nil)
	case now.Before(from):
		return Caller{}, refuse(CauseNotYetValid, nil)
	}
	if !r.trusts(state.PeerCertificates, &until, now) {
		return Caller{}, refuse(CauseUnverified, errDistrusted)
	}
	rules, ok := r.get()
	if !ok {
		return Caller{}, refuse(CauseUnverified, r.Trouble())
	}
	names := namesOf(state.VerifiedChains[0][0])
	if len(names) == 0 {
		return Caller{}, refuse(CauseNameless, nil)
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

// errDistrusted is the detail where a certificate was good at the handshake.
var errDistrusted = errors.New("none of the present authorities is good for the certificate")

// verdict is what was found of a certificate with a pool of authorities.
type verdict struct {
	trusted bool
	until   time.Time
}

// trusts reports whether the present authorities are good for what a connection has
// shown, and until when: they may have changed since its handshake, and connections
// stand for as long as their callers want. Each certificate is verified once for each
// pool.
func (r *CertificateRules) trusts(shown []*x509.Certificate, until *time.Time, now time.Time) bool {
	if r.authorities == nil || len(shown) == 0 {
		return true
	}
	pool := r.authorities()
	sum := sha256.New()
	for _, c := range shown {
		_, _ = sum.Write(c.Raw) // a hash takes everything
	}
	key := [sha256.Size]byte(sum.Sum(nil))
	found := r.seen.get(key, pool)
	if found == nil {
		found = verify(shown, pool, now)
		r.seen.put(key, pool, found)
	}
	*until = found.until
	return found.trusted
}

func verify(shown []*x509.Certificate, pool *x509.CertPool, now time.Time) *verdict {
	between := x509.NewCertPool()
	for _, c := range shown[1:] {
		between.AddCert(c)
	}
	chains, err := shown[0].Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return new(verdict)
	}
	_, until := validity(chains)
	return &verdict{trusted: true, until: until}
}

// validity is how long the chain counts that counts longest. A chain does while all of
// its certificates do.
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

// certificateName is a name as patterns are compared with it.
type certificateName struct {
	text  string
	dns   bool
	parts []string
}

// validName reports whether a name can be part of a subject.
func validName(text string) bool {
	return validSubject(text) && len(certificatePrefix)+len(text) <= maxSubjectBytes
}

// namesOf gives the names of a certificate that can be an identity.
func namesOf(c *x509.Certificate) []certificateName {
	var names []certificateName
	written := writtenURIs(c)
	for i, u := range c.URIs {
		if name, ok := uriName(u); ok && i < len(written) && isSpelling(written[i], name.text, len(u.Scheme)+len("://")+len(u.Host)) {
			names = append(names, name)
		}
	}
	for _, dns := range c.DNSNames {
		// A name for many is nobody's.
		if name, ok := dnsName(dns); ok && !strings.Contains(dns, "*") {
			names = append(names, name)
		}
	}
	return names
}

// uriName takes a URI apart at its slashes: scheme and host, then each segment of the
// path. One with a user, a query or a fragment is no identity (as SPIFFE has it), nor
// is one in which a path could be spelled in two ways.
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

// isSpelling reports whether a URI as it is written is the name, but for the case of its
// first bytes, which are scheme and host. What url.Parse drops, such as an empty fragment,
// would give two certificates one name.
func isSpelling(written, name string, first int) bool {
	first = min(first, len(written))
	return len(written) == len(name) && written[first:] == name[first:] && strings.EqualFold(written[:first], name[:first])
}

// subjectAlternativeName is the extension with a certificate's names (RFC 5280, section
// 4.2.1.6); in it a URI has the tag 6.
var subjectAlternativeName = asn1.ObjectIdentifier{2, 5, 29, 17}

const uriTag = 6

// writtenURIs returns the URIs of a certificate as they are written in it, in the order of
// c.URIs. A certificate that was not parsed has them only parsed.
func writtenURIs(c *x509.Certificate) (uris []string) {
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

// dnsName takes a DNS name apart at its dots.
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
