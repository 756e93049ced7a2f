package access

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

func certificate(t *testing.T, name string, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: parent == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, cert
}

func signed(t *testing.T, key any, alg jose.SignatureAlgorithm, header map[jose.HeaderKey]any, edit func(*claims)) string {
	t.Helper()
	o := (&jose.SignerOptions{}).WithType("JWT")
	for k, v := range header {
		o = o.WithHeader(k, v)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, o)
	if err != nil {
		t.Fatal(err)
	}
	c := &claims{Access: []grant{{Type: "repository", Name: "team/app", Actions: []string{"pull", "push"}}}}
	c.Issuer, c.Audience, c.Subject = "auth.test", jwt.Audience{"registry.test"}, "carol"
	c.Expiry, c.NotBefore = jwt.NewNumericDate(time.Now().Add(time.Minute)), jwt.NewNumericDate(time.Now())
	if edit != nil {
		edit(c)
	}
	token, err := jwt.Signed(signer).Claims(c).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func trusting(t *testing.T, roots []*x509.Certificate, set *jose.JSONWebKeySet) *Access {
	t.Helper()
	dir := t.TempDir()
	trust := &Trust{Realm: "https://auth.test/token", Service: "registry.test", Issuer: "auth.test"}
	if roots != nil {
		var bundle bytes.Buffer
		for _, cert := range roots {
			if err := pem.Encode(&bundle, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}); err != nil {
				t.Fatal(err)
			}
		}
		trust.RootCertBundle = filepath.Join(dir, "bundle.pem")
		write(t, trust.RootCertBundle, bundle.String())
	}
	if set != nil {
		data, err := json.Marshal(set)
		if err != nil {
			t.Fatal(err)
		}
		trust.JWKS = filepath.Join(dir, "jwks.json")
		write(t, trust.JWKS, string(data))
	}
	return open(t, Options{Trust: trust})
}

func chain(certs ...*x509.Certificate) []string {
	var list []string
	for _, c := range certs {
		list = append(list, base64.StdEncoding.EncodeToString(c.Raw))
	}
	return list
}

// The ways in which token servers of the last ten years name their key.
func TestTokensOfATrustedServer(t *testing.T) {
	rootKey, root := certificate(t, "root", nil, nil)
	leafKey, leaf := certificate(t, "leaf", root, rootKey)
	strangerKey, stranger := certificate(t, "stranger", nil, nil)
	setKey, _ := certificate(t, "set", nil, nil)
	der, err := x509.MarshalPKIXPublicKey(rootKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	a := trusting(t, []*x509.Certificate{root}, &jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: setKey.Public(), KeyID: "k1"}}})
	kid := func(id string) map[jose.HeaderKey]any { return map[jose.HeaderKey]any{"kid": id} }
	good := map[string]string{
		"x5c of a leaf":  signed(t, leafKey, jose.ES256, map[jose.HeaderKey]any{"x5c": chain(leaf)}, nil),
		"libtrust kid":   signed(t, rootKey, jose.ES256, kid(libtrustID(der)), nil),
		"kid of the set": signed(t, setKey, jose.ES256, kid("k1"), nil),
	}
	for how, token := range good {
		id, err := a.Authorize(bearer(token), "team/app", Read|Write)
		if err != nil || id.User != "carol" {
			t.Errorf("%s: %+v %v", how, id, err)
		}
		if _, err := a.Authorize(bearer(token), "team/app", Delete); !errors.Is(err, errdefs.ErrUnauthenticated) {
			t.Errorf("%s gives more than it says: %v", how, err)
		}
	}
	own := jose.JSONWebKey{Key: strangerKey, KeyID: "mine"}
	bad := map[string]string{
		"x5c of a stranger":          signed(t, strangerKey, jose.ES256, map[jose.HeaderKey]any{"x5c": chain(stranger)}, nil),
		"x5c of one, key of another": signed(t, strangerKey, jose.ES256, map[jose.HeaderKey]any{"x5c": chain(leaf)}, nil),
		"kid of one, key of another": signed(t, strangerKey, jose.ES256, kid("k1"), nil),
		"brings its own key":         signed(t, own, jose.ES256, nil, nil),
		"refresh token":              signed(t, setKey, jose.ES256, kid("k1"), func(c *claims) { c.Use = useRefresh }),
		"no name":                    signed(t, setKey, jose.ES256, nil, nil),
		"shared secret":              signed(t, der, jose.HS256, kid("k1"), nil),
		"another issuer":             signed(t, setKey, jose.ES256, kid("k1"), func(c *claims) { c.Issuer = "evil" }),
		"another registry":           signed(t, setKey, jose.ES256, kid("k1"), func(c *claims) { c.Audience = jwt.Audience{"other"} }),
		"ended":                      signed(t, setKey, jose.ES256, kid("k1"), func(c *claims) { c.Expiry = jwt.NewNumericDate(time.Now().Add(-time.Hour)) }),
		"endless":                    signed(t, setKey, jose.ES256, kid("k1"), func(c *claims) { c.Expiry = nil }),
		"not yet":                    signed(t, setKey, jose.ES256, kid("k1"), func(c *claims) { c.NotBefore = jwt.NewNumericDate(time.Now().Add(time.Hour)) }),
	}
	for how, token := range bad {
		if _, err := a.Authorize(bearer(token), "team/app", Read); !errors.Is(err, errdefs.ErrUnauthenticated) {
			t.Errorf("%s: %v", how, err)
		}
	}
	want := `Bearer realm="https://auth.test/token",service="registry.test",scope="repository:team/app:pull"`
	if got := a.Challenge(basic("", ""), "team/app", Read); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if _, err := a.Authorize(basic("ann", "a"), "team/app", Read); !errors.Is(err, errdefs.ErrUnauthenticated) {
		t.Errorf("a password counts where a token server is trusted: %v", err)
	}
}

// One gantry registry is the token server of another.
func TestRegistriesTrustOneAnother(t *testing.T) {
	server := open(t, Options{Htpasswd: htpasswd(t, line(t, "ann", "a")), Tokens: true, Issuer: "auth.test"})
	keys := httptest.NewRecorder()
	server.ServeKeys(keys, basic("", ""))
	path := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(path, keys.Body.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(keys.Body.Bytes(), []byte(`"d":`)) {
		t.Fatal("the private key is published")
	}
	other := open(t, Options{Trust: &Trust{Realm: "http://registry.test/token", Service: "other.test", Issuer: "auth.test", JWKS: path}})
	_, answer := fetch(t, server, get("service=other.test&scope=repository:x:pull", "ann", "a"))
	if id, err := other.Authorize(bearer(answer.Token), "x", Read); err != nil || id.User != "ann" {
		t.Errorf("%+v %v", id, err)
	}
}

func FuzzToken(f *testing.F) {
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("a.b.c")
	f.Add("")
	path := htpasswd(f, line(f, "ann", "a"))
	a := open(f, Options{Htpasswd: path, Tokens: true})
	f.Fuzz(func(t *testing.T, token string) {
		if id, err := a.bearer(token); err == nil {
			t.Fatalf("%q is %+v", token, id)
		}
	})
}

func FuzzHtpasswd(f *testing.F) {
	f.Add([]byte("ann:$2y$05$abcdefghijklmnopqrstuu5s7iYUzLUoiPOoVKHKAzBhCWFTjBXHC\n"))
	f.Add([]byte("#\n:\nx"))
	f.Fuzz(func(t *testing.T, data []byte) {
		users, err := parseHtpasswd(data)
		if err != nil {
			return
		}
		if _, ok := users[""]; ok {
			t.Fatal("a user without a name")
		}
	})
}

func FuzzScope(f *testing.F) {
	f.Add("repository:host:5000/x:pull,push")
	f.Add("repository(plugin):x:*")
	f.Fuzz(func(t *testing.T, scope string) {
		if g, ok := parseScope(scope); ok && g.Name == "" {
			t.Fatalf("%q names nothing", scope)
		}
	})
}
