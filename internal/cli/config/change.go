package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// change sets the entry of one login in the file, or removes it when a is nil.
// The file is read again first, and everything in it that is not this login
// stays as it is and where it is: the file belongs to other programs too.
func (f *File) change(key string, a *Auth) error {
	if f.name == "" {
		return errors.New("cannot keep the login: there is no home directory and DOCKER_CONFIG is not set")
	}
	unlock, err := lockDir(filepath.Dir(f.name))
	if err != nil {
		return fmt.Errorf("cannot change the configuration file %s: %w", f.name, err)
	}
	defer unlock()
	if err := f.rewrite(key, a); err != nil {
		return fmt.Errorf("cannot change the configuration file %s: %w", f.name, err)
	}
	if f.Auths == nil {
		f.Auths = map[string]Auth{}
	}
	delete(f.Auths, key)
	if a != nil {
		f.Auths[key] = *a
	}
	return nil
}

func (f *File) rewrite(key string, a *Auth) error {
	old, err := os.ReadFile(f.name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text, err := withAuth(old, key, a)
	if err != nil || bytes.Equal(text, old) {
		return err
	}
	return replace(f.name, text)
}

// withAuth is the text of a configuration file with one login changed.
func withAuth(text []byte, key string, a *Auth) ([]byte, error) {
	file, err := parseObject(text)
	if err != nil {
		return nil, err
	}
	auths, err := parseObject(file.get("auths"))
	if err != nil {
		return nil, err
	}
	if a == nil {
		auths = auths.without(key)
	} else {
		entry, err := parseObject(auths.get(key))
		if err != nil {
			return nil, err
		}
		// What we do not know about the login stays: an e-mail address.
		for _, name := range []string{"auth", "username", "password", "identitytoken", "registrytoken"} {
			entry = entry.without(name)
		}
		raw, err := json.Marshal(a)
		if err != nil {
			return nil, err
		}
		ours, err := parseObject(raw)
		if err != nil {
			return nil, err
		}
		auths = auths.with(key, append(ours, entry...).bytes())
	}
	file = file.with("auths", auths.bytes())
	var out bytes.Buffer
	err = json.Indent(&out, file.bytes(), "", "\t")
	return out.Bytes(), err
}

// object is a JSON object whose members keep their order and their text.
type object []member

type member struct {
	name  string
	raw   []byte // the name as it is written; nil for one of ours
	value json.RawMessage
}

// parseObject reads one object; nothing at all, or null, is an empty one.
func parseObject(text []byte) (object, error) {
	text = bytes.TrimSpace(bytes.TrimPrefix(text, []byte("\ufeff")))
	if len(text) == 0 || string(text) == "null" {
		return nil, nil
	}
	if !json.Valid(text) {
		var v any
		return nil, json.Unmarshal(text, &v)
	}
	if text[0] != '{' {
		return nil, errors.New("it holds something else where an object should be")
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	var o object
	for dec.More() {
		before := dec.InputOffset()
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		// JSON allows nothing but a string here.
		m := member{name: name.(string), raw: bytes.TrimLeft(text[before:dec.InputOffset()], ", \t\r\n")}
		if err := dec.Decode(&m.value); err != nil {
			return nil, err
		}
		o = append(o, m)
	}
	return o, nil
}

// get returns a member's value as the decoder of a struct would choose it: the
// last of that name, in any case of letters.
func (o object) get(name string) []byte {
	for i := len(o) - 1; i >= 0; i-- {
		if strings.EqualFold(o[i].name, name) {
			return o[i].value
		}
	}
	return nil
}

func (o object) with(name string, value []byte) object {
	for i := len(o) - 1; i >= 0; i-- {
		if strings.EqualFold(o[i].name, name) {
			o[i].value = value
			return o
		}
	}
	return append(o, member{name: name, value: value})
}

func (o object) without(name string) object {
	out := object{}
	for _, m := range o {
		if m.name != name {
			out = append(out, m)
		}
	}
	return out
}

func (o object) bytes() []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		if b.Write(m.raw); m.raw == nil {
			raw, _ := json.Marshal(m.name) // a string always encodes
			b.Write(raw)
		}
		b.WriteByte(':')
		b.Write(m.value)
	}
	b.WriteByte('}')
	return b.Bytes()
}

// replace writes the file anew beside the old one and renames it. A symbolic
// link stays one: its target is replaced. A file that was there keeps its mode
// and owner, a new one is the user's alone.
func replace(name string, text []byte) (err error) {
	target, err := followLink(name)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(target), filepath.Base(target)) // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			tmp.Close()
			os.Remove(tmp.Name())
		}
	}()
	if _, err = tmp.Write(text); err != nil {
		return err
	}
	if info, e := os.Stat(target); e == nil {
		if err = sameOwner(tmp, info); err != nil {
			return err
		}
	}
	if err = tmp.Sync(); err != nil {
		return err
	}
	if err = tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), target)
}

// followLink finds what a name stands for, even when that does not exist yet.
func followLink(name string) (string, error) {
	for range 40 { // as many as Linux follows
		to, err := os.Readlink(name)
		if err != nil {
			return name, nil //nolint:nilerr // not a link
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(name), to)
		}
		name = to
	}
	return "", fmt.Errorf("%s: too many symbolic links", name)
}
