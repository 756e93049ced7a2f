package registry

import (
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/gantry-containers/gantry/internal/errs"
)

// DecodeAuth decodes an X-Registry-Auth header: JSON in URL-safe base64. An
// empty header is no credentials at all, and no error.
func DecodeAuth(header string) (*AuthConfig, error) {
	if header == "" {
		return nil, nil
	}
	// Clients have always been sloppy about padding and alphabet.
	clean := strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(header, "="))
	data, err := base64.RawURLEncoding.DecodeString(clean)
	if err != nil {
		return nil, errs.InvalidArgument("invalid X-Registry-Auth header: %w", err)
	}
	cred := &AuthConfig{}
	if err := json.Unmarshal(data, cred); err != nil {
		return nil, errs.InvalidArgument("invalid X-Registry-Auth header: %w", err)
	}
	return cred, nil
}

// credentialOf reads an AuthConfig in all the ways clients fill it: user name
// and password, both of them in "auth" as base64, an identity (refresh) token,
// or a registry (access) token.
func credentialOf(cred *AuthConfig) credential {
	if cred == nil {
		return credential{}
	}
	c := credential{
		username: cred.Username,
		password: cred.Password,
		identity: cred.IdentityToken,
		token:    cred.RegistryToken,
	}
	if c.username == "" && c.password == "" && cred.Auth != "" {
		if pair, err := base64.StdEncoding.DecodeString(cred.Auth); err == nil {
			user, password, _ := strings.Cut(string(pair), ":")
			c.username, c.password = user, strings.TrimRight(password, "\x00")
		}
	}
	return c
}
