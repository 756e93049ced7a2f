package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// helper is the last part of the name of a program that keeps logins:
// docker-credential-NAME. It is started with one word, reads its standard input
// to the end and answers in JSON; when it fails, its output says why.
type helper string

// secret is a login in the helpers' protocol.
type secret struct{ ServerURL, Username, Secret string }

// tokenName stands for the user's name where the secret is an identity token.
const tokenName = "<token>"

// What helpers print, all of them in these words.
const (
	notFound     = "credentials not found in native keychain"
	noServerURL  = "no credentials server URL"
	noUsername   = "no credentials username"
	helperPrefix = "docker-credential-"
)

func (h helper) get(key string) (Credentials, bool, error) {
	out, err := h.run("get", "getting credentials", []byte(key))
	if err != nil {
		if strings.TrimSpace(string(out)) == notFound {
			return Credentials{}, false, nil
		}
		return Credentials{}, false, err
	}
	var s secret
	if err := json.Unmarshal(out, &s); err != nil {
		return Credentials{}, false, fmt.Errorf("cannot read the answer of %s%s: %w", helperPrefix, h, err)
	}
	if s.Username == tokenName {
		return Credentials{IdentityToken: s.Secret, ServerAddress: key}, s.Secret != "", nil
	}
	return Credentials{Username: s.Username, Password: s.Secret, ServerAddress: key}, s.Username != "", nil
}

func (h helper) store(c Credentials) error {
	s := secret{c.ServerAddress, c.Username, c.Password}
	if c.IdentityToken != "" {
		s.Username, s.Secret = tokenName, c.IdentityToken
	}
	in, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = h.run("store", "storing credentials", append(in, '\n'))
	return err
}

func (h helper) erase(key string) error {
	out, err := h.run("erase", "erasing credentials", []byte(key))
	if err != nil && strings.TrimSpace(string(out)) == notFound {
		return nil // it is as if it had been forgotten
	}
	return err
}

// list maps the keys of all logins to user names.
func (h helper) list() (map[string]string, error) {
	out, err := h.run("list", "listing credentials", []byte("unused"))
	if err != nil {
		return nil, err
	}
	var names map[string]string
	if err := json.Unmarshal(out, &names); err != nil {
		return nil, fmt.Errorf("cannot read the answer of %s%s: %w", helperPrefix, h, err)
	}
	return names, nil
}

// run starts the helper. Its error stream is the person's: helpers ask there
// for what unlocks them.
func (h helper) run(action, doing string, in []byte) ([]byte, error) {
	cmd := exec.Command(helperPrefix+string(h), action)
	cmd.Stdin = bytes.NewReader(in)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err == nil {
		return out, nil
	}
	text := strings.TrimSpace(string(out))
	if text == noServerURL || text == noUsername {
		err = errors.New(text)
	}
	return out, fmt.Errorf("error %s - err: %w, out: `%s`", doing, err, text)
}
