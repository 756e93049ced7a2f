package access

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/gantry-containers/gantry/internal/errs"
)

// claims are what a token says: those of RFC 7519, and access, which the Docker
// registry token specification adds.
type claims struct {
	jwt.Claims
	Access []grant `json:"access"`
	// Use keeps tokens for one purpose from serving another.
	Use string `json:"use,omitempty"`
	// Password is the tag of the user's password when the token was made.
	Password string `json:"pwt,omitempty"`
}

// grant is one entry of the claim access.
type grant struct {
	Type    string   `json:"type"`
	Class   string   `json:"class,omitempty"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// What tokens of ours are for.
const (
	useAccess  = "access"
	useRefresh = "refresh"
	useSession = "session"
)

const (
	refreshLifetime = 365 * 24 * time.Hour
	sessionLifetime = 12 * time.Hour
)

// rights are those the claims give to a repository.
func (c *claims) rights(repository string) Rights {
	var rights Rights
	for _, g := range c.Access {
		if g.Type == "repository" && g.Name == repository {
			for _, action := range g.Actions {
				rights |= rightOf(action)
			}
		}
	}
	return rights
}

// lists tells whether the claims are for the list of all repositories.
func (c *claims) lists() bool {
	return c.grants("registry", "catalog", "*") || c.grants("registry", "catalog", "search")
}

func (c *claims) grants(kind, name, action string) bool {
	return slices.ContainsFunc(c.Access, func(g grant) bool {
		return g.Type == kind && g.Name == name && slices.Contains(g.Actions, action)
	})
}

// issuer makes tokens and knows them again.
type issuer struct {
	name     string
	service  string // the audience of tokens that count here
	lifetime time.Duration
	key      jose.JSONWebKey
	signer   jose.Signer

	mu    sync.Mutex // guards known
	known map[[sha256.Size]byte]*claims
}

// What is remembered of tokens: so many, none of which is longer than this, in
// bytes. A client can have tokens made that name hundreds of repositories.
const (
	knownLimit   = 4096
	longestKnown = 8 << 10
)

func newIssuer(o Options) (*issuer, error) {
	i := &issuer{name: o.Issuer, lifetime: o.Lifetime, known: map[[sha256.Size]byte]*claims{}}
	if i.name == "" {
		i.name = "gantry"
	}
	switch {
	case i.lifetime == 0:
		i.lifetime = 5 * time.Minute
	case i.lifetime < time.Minute:
		i.lifetime = time.Minute
	}
	key, err := loadKey(o.KeyDir)
	if err != nil {
		return nil, err
	}
	i.key = jose.JSONWebKey{Key: key, Algorithm: string(jose.ES256), Use: "sig"}
	print, err := i.key.Thumbprint(cryptoSHA256)
	if err != nil {
		return nil, errs.System("cannot use the key of tokens: %w", err)
	}
	i.key.KeyID = base64.RawURLEncoding.EncodeToString(print)
	if i.service = o.Service; i.service == "" {
		i.service = "gantry-" + i.key.KeyID[:12]
	}
	i.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: i.key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, errs.System("cannot use the key of tokens: %w", err)
	}
	return i, nil
}

// loadKey reads the key, and makes it where there is none. Two processes that
// make it at once agree on one: a link does not replace.
func loadKey(dir string) (*ecdsa.PrivateKey, error) {
	path := filepath.Join(dir, "token.key")
	for {
		data, err := os.ReadFile(path)
		if err == nil {
			return parseKey(path, data)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, errs.System("cannot read the key of tokens: %w", err)
		}
		if err := makeKey(dir, path); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, errs.System("cannot make the key of tokens: %w", err)
		}
	}
}

func parseKey(path string, data []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errs.InvalidArgument("cannot read the key of tokens: %s is not PEM", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errs.InvalidArgument("cannot read the key of tokens in %s: %w", path, err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, errs.InvalidArgument("cannot use the key of tokens in %s: it is not of the curve P-256", path)
	}
	return ec, nil
}

func makeKey(dir, path string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".token.key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Link(f.Name(), path)
}

// sign makes a token. Its audience and its use together are its purpose.
func (i *issuer) sign(c *claims, now time.Time, lifetime time.Duration) (string, error) {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails, by its documentation
	c.Issuer = i.name
	c.IssuedAt = jwt.NewNumericDate(now)
	c.NotBefore = jwt.NewNumericDate(now)
	c.Expiry = jwt.NewNumericDate(now.Add(lifetime))
	c.ID = base64.RawURLEncoding.EncodeToString(id)
	token, err := jwt.Signed(i.signer).Claims(c).Serialize()
	if err != nil {
		return "", errs.System("cannot sign a token: %w", err)
	}
	return token, nil
}

// verify checks a token of ours, for its use and the service it is for. Those that
// were good are remembered by their hash until they end, as a signature takes
// longer to check than most requests to answer.
func (i *issuer) verify(token, use, service string, now time.Time) (*claims, error) {
	sum := sha256.Sum256([]byte(token))
	i.mu.Lock()
	c := i.known[sum]
	i.mu.Unlock()
	if c == nil {
		parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			return nil, errs.Unauthorized("the token cannot be read")
		}
		c = &claims{}
		if err := parsed.Claims(i.key.Public().Key, c); err != nil {
			return nil, errs.Unauthorized("the token was not signed here")
		}
		if len(token) <= longestKnown {
			i.remember(sum, c)
		}
	}
	if c.Use != use || !c.Audience.Contains(service) {
		return nil, errs.Unauthorized("the token is for something else")
	}
	if c.Expiry == nil || c.Validate(jwt.Expected{Issuer: i.name, Time: now}) != nil {
		return nil, errs.Unauthorized("the token is not valid any more")
	}
	return c, nil
}

func (i *issuer) remember(sum [sha256.Size]byte, c *claims) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.known) >= knownLimit {
		clear(i.known)
	}
	i.known[sum] = c
}
