package registry

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Login tries credentials on the registry their ServerAddress names, Docker Hub
// when it names none. It returns the identity token that is to be kept in place
// of the password, where the registry gives one. Wrong credentials are an
// errdefs.ErrUnauthenticated.
func (c *Client) Login(ctx context.Context, cred *AuthConfig) (identityToken string, err error) {
	host, err := serverHost(cred)
	if err != nil {
		return "", err
	}
	e, err := c.server(host, cred)
	if err != nil {
		return "", err
	}
	e.auth.offline = true
	resp, err := e.do(ctx, "", call{method: http.MethodGet, scopes: []string{}})
	if err != nil {
		return "", err
	}
	target := resp.Request.URL.Redacted()
	switch resp.StatusCode {
	case http.StatusOK:
		drain(resp)
		return e.auth.identity(), nil
	case http.StatusUnauthorized:
		return "", errs.Unauthorized("login attempt to %s failed with status: %d %s: %w", target, resp.StatusCode, http.StatusText(resp.StatusCode), refusal(host, resp))
	case http.StatusNotFound:
		drain(resp)
		return "", errs.InvalidArgument("%s is no registry: it does not know %s", host, target)
	}
	return "", refusal(host, resp)
}

// server is a registry as one talks to it about itself: mirrors do not count.
func (c *Client) server(host string, cred *AuthConfig) (*endpoint, error) {
	config, err := c.configOf(host)
	if err != nil {
		return nil, err
	}
	return c.endpoint(host, config, credentialOf(cred)), nil
}

// serverHost is the registry that credentials are for. Clients name it by host,
// or by a URL of which only the host matters.
func serverHost(cred *AuthConfig) (string, error) {
	if cred == nil || cred.ServerAddress == "" {
		return dockerHub, nil
	}
	address := cred.ServerAddress
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return "", errs.InvalidArgument("unable to parse server address: %s", cred.ServerAddress)
	}
	return registryHost(u.Host), nil
}

// registryHost is the server behind the name of a registry.
func registryHost(name string) string {
	switch name {
	case "docker.io", "index.docker.io":
		return dockerHub
	}
	return name
}
