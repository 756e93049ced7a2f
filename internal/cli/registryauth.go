package cli

import (
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/moby/moby/api/types/registry"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/config"
)

// registryAuth is the login for a registry in the header the engine expects:
// base64url of JSON, RFC 4648 section 5.
func (a *app) registryAuth(domain string) (client.Header, error) {
	creds, ok, err := a.config().Credentials(config.Key(domain))
	if err != nil || !ok {
		return nil, err
	}
	text, err := json.Marshal(authConfig(creds))
	if err != nil {
		return nil, err
	}
	return client.Header{registry.AuthHeader: {base64.URLEncoding.EncodeToString(text)}}, nil
}

// registryAuthIfAny goes on without a login when the one that is kept cannot be
// read: what is public needs none, and the registry says so when it does. The
// header is always there, because old engines insist on it.
func (a *app) registryAuthIfAny(domain string) client.Header {
	header, err := a.registryAuth(domain)
	if err != nil {
		fmt.Fprintln(a.err, "WARNING:", err)
	}
	if header == nil {
		header = client.Header{registry.AuthHeader: {base64.URLEncoding.EncodeToString([]byte("{}"))}}
	}
	return header
}

func authConfig(c config.Credentials) registry.AuthConfig {
	return registry.AuthConfig{
		Username:      c.Username,
		Password:      c.Password,
		IdentityToken: c.IdentityToken,
		RegistryToken: c.RegistryToken,
		ServerAddress: c.ServerAddress,
	}
}
