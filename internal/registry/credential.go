package registry

import (
	"encoding/base64"
	"strings"
)

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
