package server

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/filter"
)

type fakeRegistries struct {
	asked string
	err   error
}

func (f *fakeRegistries) Login(_ context.Context, cred *registry.AuthConfig) (string, error) {
	f.asked = cred.Username + " " + cred.Password + " " + cred.ServerAddress
	return "", f.err
}

func (f *fakeRegistries) Search(_ context.Context, term string, limit int, filters filter.Args, cred *registry.AuthConfig) ([]registry.SearchResult, error) {
	f.asked = fmt.Sprint(term, limit, filters, cred != nil)
	return []registry.SearchResult{{Name: "web", StarCount: 3}}, f.err
}

func (f *fakeRegistries) Inspect(_ context.Context, name string, cred *registry.AuthConfig) (*registry.DistributionInspect, error) {
	f.asked = fmt.Sprint(name, cred != nil)
	return &registry.DistributionInspect{Descriptor: ocispec.Descriptor{Digest: digest.FromString("x"), Size: 1}}, f.err
}

func TestLogin(t *testing.T) {
	f := newFixture()
	w := f.ask("POST", "/auth", `{"username":"me","password":"p","serveraddress":"r.example"}`, "Content-Type", "application/json")
	if w.Code != 200 || w.Body.String() != `{"IdentityToken":"","Status":"Login Succeeded"}`+"\n" || f.registries.asked != "me p r.example" {
		t.Errorf("%d %s, asked %q", w.Code, w.Body, f.registries.asked)
	}
	wantError(t, f.ask("POST", "/auth", `{"username":`), 400, "invalid X-Registry-Auth header: invalid JSON: unexpected EOF")
	wantError(t, f.ask("POST", "/auth", `{} {}`), 400, "invalid X-Registry-Auth header: multiple JSON documents not allowed")
	f.registries.err = errs.Unauthorized("unauthorized: incorrect username or password")
	wantError(t, f.ask("POST", "/auth", `{}`), 401, "unauthorized: incorrect username or password")
}

func TestSearch(t *testing.T) {
	f := newFixture()
	w := f.ask("GET", `/images/search?term=web&limit=3&filters={"stars":["2"]}`, "", "X-Registry-Auth", "rubbish")
	if w.Code != 200 || w.Body.String() != `[{"star_count":3,"is_official":false,"name":"web","is_automated":false,"description":""}]`+"\n" ||
		f.registries.asked != "web3 map[stars:[2]] false" {
		t.Errorf("%d %s, asked %q", w.Code, w.Body, f.registries.asked)
	}
	for _, limit := range []string{"x", "-1"} {
		if w := f.ask("GET", "/images/search?term=web&limit="+limit, ""); w.Code != 400 || !strings.Contains(w.Body.String(), "invalid limit specified") {
			t.Errorf("%s: %d %s", limit, w.Code, w.Body)
		}
	}
}

func TestDistribution(t *testing.T) {
	f := newFixture()
	w := f.ask("GET", "/distribution/r.example:5000/a/b:1/json", "", "X-Registry-Auth", "eyJ1c2VybmFtZSI6InUifQ==")
	want := fmt.Sprintf(`{"Descriptor":{"mediaType":"","digest":%q,"size":1},"Platforms":null}`+"\n", digest.FromString("x"))
	if w.Code != 200 || w.Body.String() != want || f.registries.asked != "r.example:5000/a/b:1true" {
		t.Errorf("%d %s, asked %q", w.Code, w.Body, f.registries.asked)
	}
	f.registries.err = errs.NotFound("manifest unknown")
	wantError(t, f.ask("GET", "/distribution/a/json", ""), 404, "manifest unknown")
}
