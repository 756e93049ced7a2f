package registry

import (
	"encoding/base64"
	"encoding/json"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"

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
func credentialOf(cred *AuthConfig) auth.Credential {
	if cred == nil {
		return auth.EmptyCredential
	}
	c := auth.Credential{
		Username:     cred.Username,
		Password:     cred.Password,
		RefreshToken: cred.IdentityToken,
		AccessToken:  cred.RegistryToken,
	}
	if c.Username == "" && c.Password == "" && cred.Auth != "" {
		if pair, err := base64.StdEncoding.DecodeString(cred.Auth); err == nil {
			user, password, _ := strings.Cut(string(pair), ":")
			c.Username, c.Password = user, strings.TrimRight(password, "\x00")
		}
	}
	return c
}
