package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
)

// Hub is the key of Docker Hub in the file and in helpers, for historical
// reasons.
const Hub = "https://index.docker.io/v1/"

// Credentials are what to log in with at a registry. ServerAddress is the key
// they are kept under: Hub, or host[:port].
type Credentials struct {
	Username, Password, IdentityToken, RegistryToken, ServerAddress string
}

// Auth is what the file stores about a registry.
type Auth struct {
	Auth          string `json:"auth,omitempty"` // base64 of name:password
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

// Auth is how a file stores the credentials.
func (c Credentials) Auth() Auth {
	a := Auth{IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken}
	if c.Username != "" || c.Password != "" {
		a.Auth = base64.StdEncoding.EncodeToString([]byte(c.Username + ":" + c.Password))
	}
	return a
}

// Key is what the login for a registry ("docker.io", "registry.example:5000")
// is kept under.
func Key(registry string) string {
	if registry == "docker.io" || registry == "index.docker.io" {
		return Hub
	}
	return registry
}

// Hostname drops the scheme and the path from what older logins were kept under.
func Hostname(key string) string {
	if strings.Contains(key, "://") {
		if u, err := url.Parse(key); err == nil && u.Hostname() != "" {
			if u.Port() == "" {
				return u.Hostname()
			}
			return net.JoinHostPort(u.Hostname(), u.Port())
		}
	}
	host, _, _ := strings.Cut(key, "/")
	return host
}

// Credentials looks up the login under a key, in the helper that is configured
// for it, or else in the file. None at all is not an error: ok is false.
func (f *File) Credentials(key string) (_ Credentials, ok bool, _ error) {
	if h := f.helper(key); h != "" {
		return h.get(key)
	}
	a, exact := f.Auths[key]
	if exact {
		return a.credentials(key)
	}
	for _, name := range slices.Sorted(maps.Keys(f.Auths)) {
		if Hostname(name) == key {
			return f.Auths[name].credentials(name)
		}
	}
	return Credentials{}, false, nil
}

// All looks up every login there is, in the file and in all helpers. The logins
// that can be read are returned even when some cannot.
func (f *File) All() (map[string]Credentials, error) {
	all := map[string]Credentials{}
	var errs []error
	keep := func(key string) {
		c, ok, err := f.Credentials(key)
		if err != nil {
			errs = append(errs, err)
		} else if ok {
			all[key] = c
		}
	}
	if h := helper(f.CredsStore); h != "" {
		names, err := h.list()
		if err != nil {
			errs = append(errs, err)
		}
		for key := range names {
			keep(key)
		}
	} else {
		for key := range f.Auths {
			keep(key)
		}
	}
	for key := range f.CredHelpers {
		keep(key)
	}
	return all, errors.Join(errs...)
}

// Store keeps a login under c.ServerAddress, in the helper that is configured
// for it or else in the file. plain is the name of the file when that now holds
// a password anybody can read who can read the file.
func (f *File) Store(c Credentials) (plain string, err error) {
	if h := f.helper(c.ServerAddress); h != "" {
		if err := h.store(c); err != nil {
			return "", err
		}
		// The key in the file tells older clients that there is a login.
		return "", f.change(c.ServerAddress, &Auth{})
	}
	a := c.Auth()
	if f.Auths[c.ServerAddress] == a {
		return "", nil
	}
	if err := f.change(c.ServerAddress, &a); err != nil {
		return "", err
	}
	if c.Password == "" {
		return "", nil
	}
	return f.name, nil
}

// Erase forgets the login under a key. One that is not there is no error.
func (f *File) Erase(key string) error {
	if h := f.helper(key); h != "" {
		if err := h.erase(key); err != nil {
			return err
		}
	}
	if _, ok := f.Auths[key]; !ok {
		return nil
	}
	return f.change(key, nil)
}

// helper is the program that is configured for a key, if any.
func (f *File) helper(key string) helper {
	if h, ok := f.CredHelpers[key]; ok && key != "" {
		return helper(h)
	}
	return helper(f.CredsStore)
}

// credentials decodes an entry. ok is false for one that only notes that a
// helper has the login.
func (a Auth) credentials(key string) (_ Credentials, ok bool, _ error) {
	c := Credentials{a.Username, a.Password, a.IdentityToken, a.RegistryToken, key}
	if a.Auth != "" {
		text, err := base64.StdEncoding.DecodeString(a.Auth)
		if err != nil {
			return Credentials{}, false, fmt.Errorf("cannot use the stored login for %s: %w", key, err)
		}
		user, password, found := strings.Cut(string(text), ":")
		if !found || user == "" {
			return Credentials{}, false, fmt.Errorf("cannot use the stored login for %s: the auth field does not hold name:password", key)
		}
		c.Username, c.Password = user, strings.Trim(password, "\x00")
	}
	return c, c.Username != "" || c.IdentityToken != "" || c.RegistryToken != "", nil
}
