package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

func load(t *testing.T, dir string) *File {
	t.Helper()
	f, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
}

// The file belongs to other programs too: what they wrote stays, in its order
// and to the letter.
func TestOthersKeysStay(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "config.json")
	write(t, name, `{"zebra": 1e400, "auths": {"b": {"email": "x", "auth": "YTpi", "new": [1]}, "a": {}}, "Others": {"<": "&"}, "zebra": 2}`, 0o644)
	f := load(t, dir)
	plain, err := f.Store(Credentials{Username: "u", Password: "p:q", ServerAddress: "b"})
	if err != nil || plain != name {
		t.Fatal(plain, err)
	}
	if _, err := f.Store(Credentials{Username: "u", IdentityToken: "tok", ServerAddress: "c"}); err != nil {
		t.Fatal(err)
	}
	if err := f.Erase("a"); err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(name)
	const want = `{
	"zebra": 1e400,
	"auths": {
		"b": {
			"auth": "dTpwOnE=",
			"email": "x",
			"new": [
				1
			]
		},
		"c": {
			"auth": "dTo=",
			"identitytoken": "tok"
		}
	},
	"Others": {
		"<": "&"
	},
	"zebra": 2
}`
	if string(text) != want {
		t.Errorf("the file holds\n%s\nwant\n%s", text, want)
	}
	if c, ok, err := f.Credentials("b"); !ok || err != nil || c.Username != "u" || c.Password != "p:q" {
		t.Errorf("b: %+v %v %v", c, ok, err)
	}
	if info, _ := os.Stat(name); info.Mode().Perm() != 0o644 {
		t.Errorf("the mode has become %v", info.Mode())
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*")); len(names) != 1 {
		t.Errorf("left in the directory: %v", names)
	}
}

// A new file is its owner's alone; a link to a file elsewhere stays a link, even
// when it led nowhere yet.
func TestNewFileAndLink(t *testing.T) {
	home, elsewhere := filepath.Join(t.TempDir(), "made", "here"), t.TempDir()
	if _, err := load(t, home).Store(Credentials{Username: "u", Password: "p", ServerAddress: "a"}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(home, "config.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info, err)
	}
	linked := t.TempDir()
	link := filepath.Join(linked, "config.json")
	if err := os.Symlink(filepath.Join(elsewhere, "real.json"), link); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "b"} {
		if _, err := load(t, linked).Store(Credentials{Username: "u", Password: "p", ServerAddress: key}); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link has become a file: %v", err)
	}
	if text, err := os.ReadFile(filepath.Join(elsewhere, "real.json")); err != nil || strings.Count(string(text), "auth\"") != 2 {
		t.Errorf("the link's target holds %s, %v", text, err)
	}
}

// A file that cannot be understood is left alone: what is in it may be all that
// somebody has.
func TestBrokenFileIsKept(t *testing.T) {
	for _, text := range []string{`{"auths": {"a": `, `[]`, `{"auths": []}`, `{"auths": {"a": 1}}`, "\x00"} {
		dir := t.TempDir()
		name := filepath.Join(dir, "config.json")
		write(t, name, text, 0o600)
		f, _ := Load(dir)
		if _, err := f.Store(Credentials{Username: "u", Password: "p", ServerAddress: "a"}); err == nil {
			t.Errorf("%q is changed", text)
		}
		if now, _ := os.ReadFile(name); string(now) != text {
			t.Errorf("%q has become %q", text, now)
		}
	}
}

// Two logins at once are two logins.
func TestLoginsAtOnce(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 30 {
		f := load(t, dir)
		wg.Go(func() {
			if _, err := f.Store(Credentials{Username: "u", Password: "p", ServerAddress: fmt.Sprint("host", i)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(load(t, dir).Auths); n != 30 {
		t.Errorf("%d logins of 30 are kept", n)
	}
}

func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "config.json"), `{"auths": {
		"https://old.example/v1/": {"auth": "b2xkOnA="}, "https://old.example:5000/v1/": {"auth": "YTpi"}, "bad": {"auth": "!"}, "nocolon": {"auth": "YWI="},
		"plain": {"username": "u", "password": "p"}, "empty": {}, "token": {"registrytoken": "r"}, "https://index.docker.io/v1/": {"auth": "aHViOnA="}}}`, 0o600)
	f := load(t, dir)
	for key, want := range map[string]string{
		"old.example": "old", "old.example:5000": "a", "plain": "u", "empty": "none", "token": "", "nosuch": "none", Key("docker.io"): "hub", Key("index.docker.io"): "hub", "bad": "error", "nocolon": "error",
	} {
		c, ok, err := f.Credentials(key)
		got := c.Username
		if err != nil {
			got = "error"
		} else if !ok {
			got = "none"
		}
		if got != want {
			t.Errorf("%s: %s (%+v, %v), want %s", key, got, c, err, want)
		}
	}
	all, err := f.All()
	if len(all) != 5 || err == nil {
		t.Errorf("all: %d, %v", len(all), err)
	}
	for key, want := range map[string]string{"http://a:1/v1": "a:1", "a/b": "a", "https://a": "a", "https://[::1]:5/v1/": "[::1]:5", "://": ":", "a:1": "a:1"} {
		if got := Hostname(key); got != want {
			t.Errorf("%s is at %s, want %s", key, got, want)
		}
	}
}

// FuzzWithAuth changes one login in arbitrary files: either the file is refused,
// or the result is JSON in which that login and nothing else has changed.
func FuzzWithAuth(f *testing.F) {
	f.Add([]byte(`{"auths":{"a":{"auth":"x","email":"e"},"b":{}},"z":[1.0,"\u2028"]}`), "a", "user")
	f.Add([]byte(" "), "", "")
	f.Add([]byte(`{"Auths":null}`), "k\x00<", "u")
	f.Fuzz(func(t *testing.T, text []byte, key, user string) {
		out, err := withAuth(text, key, &Auth{Username: user})
		if err != nil || !utf8.ValidString(key+user) {
			return
		}
		var before, after map[string]any
		if err := json.Unmarshal(out, &after); err != nil {
			t.Fatalf("%q becomes %q: %v", text, out, err)
		}
		again, err := withAuth(out, key, &Auth{Username: user})
		if err != nil || string(again) != string(out) {
			t.Fatalf("%q is not what a second change makes of it: %q, %v", out, again, err)
		}
		if strings.TrimSpace(string(text)) == "" || json.Unmarshal(text, &before) != nil {
			return
		}
		for name := range before {
			if _, ok := after[name]; !ok {
				t.Fatalf("%q is gone from %q", name, out)
			}
		}
	})
}
