package server

import (
	"errors"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/jsonstream"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/image"
)

func TestPull(t *testing.T) {
	const dgst = "sha256:0123456789012345678901234567890123456789012345678901234567890123"
	for _, tt := range []struct {
		query, ref string
		all        bool
	}{
		{"fromImage=busybox&tag=latest", "docker.io/library/busybox:latest", false},
		{"fromImage=busybox:1", "docker.io/library/busybox:1", false},
		{"fromImage=r.example:5000/a/b&tag=" + dgst, "r.example:5000/a/b@" + dgst, false},
		{"fromImage=busybox:", "docker.io/library/busybox", true},
	} {
		f := newFixture()
		var got image.PullOptions
		f.images.pull = func(o image.PullOptions) error {
			got = o
			o.Progress(jsonstream.Message{Status: "Pulling", ID: "1", Progress: &jsonstream.Progress{Current: 1, Total: 2}})
			return nil
		}
		// {"username":"u","password":"p"}
		w := f.ask("POST", "/images/create?platform=linux/arm64&"+tt.query, "", "X-Registry-Auth", "eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ==")
		if w.Code != 200 || w.Body.String() != `{"status":"Pulling","progressDetail":{"current":1,"total":2},"id":"1"}`+"\n" {
			t.Errorf("%s: %d %q", tt.query, w.Code, w.Body)
		}
		if f.images.pulled != tt.ref || got.AllTags != tt.all || got.Auth.Username != "u" || got.Platform.Architecture != "arm64" {
			t.Errorf("%s: pulled %s %+v", tt.query, f.images.pulled, got)
		}
	}
}

func TestPullAllPlatforms(t *testing.T) {
	f := newFixture()
	var got image.PullOptions
	f.images.pull = func(o image.PullOptions) error { got = o; return nil }
	if w := f.ask("POST", "/images/create?platform=all&fromImage=a&tag=b", ""); w.Code != 200 || !got.AllPlatforms || got.Platform != nil {
		t.Errorf("%d %q, pulled with %+v", w.Code, w.Body, got)
	}
}

func TestPullErrors(t *testing.T) {
	f := newFixture()
	wantError(t, f.ask("POST", "/images/create?fromImage=scratch", ""), 403, "'scratch' is a reserved name")
	wantError(t, f.ask("POST", "/images/create?fromImage=A", ""), 400, "invalid reference format: repository name (library/A) must be lowercase")
	wantError(t, f.ask("POST", "/images/create?fromImage=a&tag=!", ""), 400, "invalid tag format")
	f.images.pull = func(image.PullOptions) error { return errs.NotFound("no such repository") }
	wantError(t, f.ask("POST", "/images/create?fromImage=a&tag=b", ""), 404, "no such repository")
	f.images.pull = func(o image.PullOptions) error {
		o.Progress(jsonstream.Message{Status: "Pulling"})
		return errors.New("the link broke")
	}
	w := f.ask("POST", "/images/create?fromImage=a&tag=b", "", "X-Registry-Auth", "rubbish")
	if want := `{"errorDetail":{"message":"the link broke"},"error":"the link broke"}` + "\n"; w.Code != 200 || !strings.HasSuffix(w.Body.String(), want) {
		t.Errorf("late error: %d %q", w.Code, w.Body)
	}
}

// A body that says it is a form, as curl's are, is an archive all the same.
func TestLoadTakesAnyBody(t *testing.T) {
	f := newFixture()
	w := f.ask("POST", "/images/load?quiet=0", "the=archive&really", "Content-Type", "application/x-www-form-urlencoded")
	if w.Code != 200 || f.images.loaded != "the=archive&really" {
		t.Errorf("got %d, loaded %q", w.Code, f.images.loaded)
	}
}

func TestTag(t *testing.T) {
	f := newFixture()
	if w := f.ask("POST", "/images/a/b:c/tag?repo=d&tag=e", ""); w.Code != 201 || f.images.tagged != [3]string{"a/b:c", "d", "e"} {
		t.Errorf("got %d %q", w.Code, f.images.tagged)
	}
	for _, query := range []string{"repo=sha256&tag=x", "repo=a@sha256:0123456789012345678901234567890123456789012345678901234567890123", "repo=a&tag=a/b"} {
		if w := f.ask("POST", "/images/x/tag?"+query, ""); w.Code != 400 {
			t.Errorf("%s: %d", query, w.Code)
		}
	}
}
