package access

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Trust names a token server whose tokens hold here, in the terms of
// docker-registry's configuration auth.token.
type Trust struct {
	Realm   string `toml:"realm"`   // URL where clients get tokens
	Service string `toml:"service"` // audience tokens must have
	Issuer  string `toml:"issuer"`  // issuer tokens must have
	// RootCertBundle is a PEM file. A token is good that is signed by the key
	// of one of its certificates, or of one that chains up to it (x5c).
	RootCertBundle string `toml:"rootcertbundle"`
	// JWKS is a file with a JSON Web Key Set (RFC 7517).
	JWKS string `toml:"jwks"`
}

// verifier checks the tokens of another server.
type verifier struct {
	issuer, service string
	roots           *x509.CertPool
	keys            map[string]crypto.PublicKey // by each key ID in use
}

func newVerifier(t *Trust) (*verifier, error) {
	if t.Realm == "" || t.Service == "" || t.Issuer == "" {
		return nil, errs.InvalidArgument("to trust a token server takes its realm, service and issuer")
	}
	v := &verifier{issuer: t.Issuer, service: t.Service, roots: x509.NewCertPool(), keys: map[string]crypto.PublicKey{}}
	if t.RootCertBundle != "" {
		if err := v.addCertificates(t.RootCertBundle); err != nil {
			return nil, err
		}
	}
	if t.JWKS != "" {
		if err := v.addKeys(t.JWKS); err != nil {
			return nil, err
		}
	}
	if len(v.keys) == 0 {
		return nil, errs.InvalidArgument("to trust a token server takes a key of it: give rootcertbundle or jwks")
	}
	return v, nil
}

func (v *verifier) addCertificates(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return errs.InvalidArgument("cannot read the certificates of the token server: %w", err)
	}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return errs.InvalidArgument("cannot read the certificates in %s: %w", path, err)
		}
		v.roots.AddCert(cert)
		v.add(cert.PublicKey)
	}
}

// add knows a key by the two names token servers give one: its RFC 7638
// thumbprint and, as those for registries before version 3 do, the fingerprint
// of Docker's libtrust.
func (v *verifier) add(key crypto.PublicKey) {
	jwk := jose.JSONWebKey{Key: key}
	if print, err := jwk.Thumbprint(crypto.SHA256); err == nil {
		v.keys[base64.RawURLEncoding.EncodeToString(print)] = key
	}
	if der, err := x509.MarshalPKIXPublicKey(key); err == nil {
		v.keys[libtrustID(der)] = key
	}
}

// libtrustID is 240 bits of the SHA-256 of a public key in base32, in groups of
// four.
func libtrustID(der []byte) string {
	sum := sha256.Sum256(der)
	text := base32.StdEncoding.EncodeToString(sum[:30])
	groups := make([]string, 0, len(text)/4)
	for ; len(text) >= 4; text = text[4:] {
		groups = append(groups, text[:4])
	}
	return strings.Join(groups, ":")
}

func (v *verifier) addKeys(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return errs.InvalidArgument("cannot read the keys of the token server: %w", err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(data, &set); err != nil {
		return errs.InvalidArgument("cannot read the keys in %s: %w", path, err)
	}
	for _, key := range set.Keys {
		public := key.Public()
		if !public.Valid() {
			return errs.InvalidArgument("cannot use a key in %s: tokens are checked with public keys only", path)
		}
		v.add(public.Key)
		if key.KeyID != "" {
			v.keys[key.KeyID] = public.Key
		}
	}
	return nil
}

// algorithms a token may be signed with. Those with a shared secret are not
// among them: a public key must never be taken for one.
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.ES256, jose.ES384, jose.ES512, jose.RS256, jose.RS384, jose.RS512,
		jose.PS256, jose.PS384, jose.PS512, jose.EdDSA,
	}
}

// verify checks signature, issuer, audience and time.
func (v *verifier) verify(token string, now time.Time) (*claims, error) {
	parsed, err := jwt.ParseSigned(token, algorithms())
	if err != nil || len(parsed.Headers) != 1 {
		return nil, errs.Unauthorized("the token cannot be read")
	}
	key, err := v.keyOf(parsed.Headers[0], now)
	if err != nil {
		return nil, err
	}
	c := &claims{}
	if err := parsed.Claims(key, c); err != nil {
		return nil, errs.Unauthorized("the signature of the token is wrong")
	}
	if c.Expiry == nil {
		return nil, errs.Unauthorized("the token has no end")
	}
	if c.Use != "" && c.Use != useAccess {
		return nil, errs.Unauthorized("the token is for something else")
	}
	expected := jwt.Expected{Issuer: v.issuer, AnyAudience: jwt.Audience{v.service}, Time: now}
	if err := c.Validate(expected); err != nil {
		return nil, errs.Unauthorized("the token is not valid here, or not any more")
	}
	return c, nil
}

func (v *verifier) keyOf(h jose.Header, now time.Time) (crypto.PublicKey, error) {
	chains, err := h.Certificates(x509.VerifyOptions{
		Roots: v.roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err == nil {
		return chains[0][0].PublicKey, nil
	}
	id := h.KeyID
	if id == "" && h.JSONWebKey != nil {
		// Only the name of an embedded key counts: which key that is, we know.
		if id = h.JSONWebKey.KeyID; id == "" {
			if print, err := h.JSONWebKey.Thumbprint(crypto.SHA256); err == nil {
				id = base64.RawURLEncoding.EncodeToString(print)
			}
		}
	}
	if key, ok := v.keys[id]; ok {
		return key, nil
	}
	return nil, errs.Unauthorized("the token was signed by a key that is not trusted")
}
