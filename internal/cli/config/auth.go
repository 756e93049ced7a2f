package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
)

// hub is the key of Docker Hub in the file, for historical reasons.
const hub = "https://index.docker.io/v1/"

// Credentials are what to log in with at a registry.
type Credentials struct {
	Username, Password, IdentityToken, RegistryToken, ServerAddress string
}

// Credentials looks up registry ("docker.io", "registry.example:5000") in the
// credential helpers and then in the file. None at all is not an error: ok is
// false.
func (f *File) Credentials(registry string) (_ Credentials, ok bool, _ error) {
	key := registry
	if registry == "docker.io" || registry == "index.docker.io" {
		key = hub
	}
	helper := f.CredsStore
	if h, ok := f.CredHelpers[key]; ok {
		helper = h
	}
	if helper != "" {
		c, ok, err := fromHelper(helper, key)
		if err != nil || ok {
			return c, ok, err
		}
	}
	for name, a := range f.Auths {
		if name != key && hostOf(name) != hostOf(key) {
			continue
		}
		user, password, err := a.userAndPassword()
		if err != nil {
			return Credentials{}, false, fmt.Errorf("cannot use the stored login for %s: %w", registry, err)
		}
		if user == "" && a.IdentityToken == "" && a.RegistryToken == "" {
			continue // only a note that a helper has it
		}
		return Credentials{user, password, a.IdentityToken, a.RegistryToken, name}, true, nil
	}
	return Credentials{}, false, nil
}

// hostOf drops the scheme and the path, which older logins stored.
func hostOf(key string) string {
	_, rest, ok := strings.Cut(key, "://")
	if !ok {
		rest = key
	}
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// fromHelper asks docker-credential-NAME, whose protocol is one line in and
// JSON out.
func fromHelper(name, key string) (Credentials, bool, error) {
	cmd := exec.Command("docker-credential-"+name, "get")
	cmd.Stdin = strings.NewReader(key)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(out.String() + errOut.String())
		if strings.Contains(text, "credentials not found") {
			return Credentials{}, false, nil
		}
		if text == "" {
			text = err.Error()
		}
		return Credentials{}, false, fmt.Errorf("the credential helper %s failed: %s", name, text)
	}
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		return Credentials{}, false, fmt.Errorf("cannot read the answer of the credential helper %s: %w", name, err)
	}
	if answer.Username == "<token>" {
		return Credentials{IdentityToken: answer.Secret, ServerAddress: key}, true, nil
	}
	return Credentials{Username: answer.Username, Password: answer.Secret, ServerAddress: key}, true, nil
}
