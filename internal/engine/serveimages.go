package engine

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/image"
	"github.com/gantry-containers/gantry/internal/registry/depot"
	"github.com/gantry-containers/gantry/internal/registry/serve"
)

// ServeImages is the engine's images as a registry to pull from, for its
// neighbours: /v2/ of the OCI distribution specification, and nothing that
// writes.
//
// It asks nobody who he is: whoever reaches it can list and read every image
// here, with all that is in its layers and its configuration, private ones that
// were pulled with credentials included. Nothing of containers, volumes or
// builds is served, and nothing can be changed.
//
// A repository has the name Docker gives it without its host for Docker Hub
// (library/busybox), else the full one (registry.example/team/app); a client
// that stands for another registry may say which in the parameter ns, as
// containerd does, and leave that out of the name.
func (e *Engine) ServeImages() http.Handler {
	protocol := serve.New(serve.Options{Depot: shelf{e.Images}, ReadOnly: true, Sparse: true, Log: e.log})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ns := r.URL.Query().Get("ns"); ns != "" {
			r = r.WithContext(context.WithValue(r.Context(), namespaceKey{}, ns))
		}
		protocol.ServeHTTP(w, r)
	})
}

// namespaceKey is under which the registry a request is about stands in its
// context.
type namespaceKey struct{}

// shelf is the images as serve reads them.
type shelf struct{ images *image.Manager }

var _ depot.Reader = shelf{}

const hub = "docker.io/"

// full is the name of a repository as the manager has it.
func full(ctx context.Context, repository string) (string, error) {
	name := repository
	if ns, _ := ctx.Value(namespaceKey{}).(string); ns != "" {
		name = ns + "/" + repository
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", depot.ManifestUnknown(repository, "")
	}
	return reference.TrimNamed(named).Name(), nil
}

// tagged lists the tags by repository, under full names.
func (s shelf) tagged() map[string][]string {
	tags := map[string][]string{}
	for _, name := range s.images.Names() {
		if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
			tags[name[:i]] = append(tags[name[:i]], name[i+1:])
		}
	}
	return tags
}

// Stat implements depot.Reader.
func (s shelf) Stat(ctx context.Context, repository string, dgst digest.Digest) (depot.Info, error) {
	f, info, err := s.Open(ctx, repository, dgst)
	if err != nil {
		return info, err
	}
	return info, f.Close()
}

// Open implements depot.Reader.
func (s shelf) Open(ctx context.Context, _ string, dgst digest.Digest) (io.ReadSeekCloser, depot.Info, error) {
	// Whose blob it is makes no difference: all that images have is served.
	f, size, err := s.images.Open(ctx, dgst)
	return f, depot.Info{Digest: dgst, Size: size}, err
}

// Manifest implements depot.Reader.
func (s shelf) Manifest(ctx context.Context, repository, ref string) (depot.Manifest, []byte, error) {
	name, err := full(ctx, repository)
	if err != nil {
		return depot.Manifest{}, nil, err
	}
	desc, body, err := s.images.Lookup(ctx, name, ref)
	if err != nil {
		return depot.Manifest{}, nil, err
	}
	m, err := serve.ParseManifest(desc.MediaType, body)
	m.Digest = desc.Digest
	return m, body, err
}

// StatManifest implements depot.Reader.
func (s shelf) StatManifest(ctx context.Context, repository, ref string) (depot.Manifest, error) {
	m, _, err := s.Manifest(ctx, repository, ref)
	return m, err
}

// Exists implements depot.Reader.
func (s shelf) Exists(ctx context.Context, repository string) (bool, error) {
	name, err := full(ctx, repository)
	if err != nil {
		return false, nil
	}
	for _, ref := range s.images.Names() {
		if strings.HasPrefix(ref, name+":") || strings.HasPrefix(ref, name+"@") {
			return true, nil
		}
	}
	return false, nil
}

// Repositories implements depot.Reader. Those whose registry has a port cannot
// be names here, and are found by the parameter ns only.
func (s shelf) Repositories(_ context.Context, after string, n int) ([]string, error) {
	var names []string
	for name := range s.tagged() {
		name = strings.TrimPrefix(name, hub)
		if depot.CheckRepository(name) == nil {
			names = append(names, name)
		}
	}
	return page(names, after, n), nil
}

// Tags implements depot.Reader.
func (s shelf) Tags(ctx context.Context, repository, after string, n int) ([]string, error) {
	name, err := full(ctx, repository)
	if err != nil {
		return nil, nil
	}
	return page(s.tagged()[name], after, n), nil
}

// Tag implements depot.Reader.
func (s shelf) Tag(ctx context.Context, repository, tag string) (depot.Tag, error) {
	m, err := s.StatManifest(ctx, repository, tag)
	return depot.Tag{Name: tag, Digest: m.Digest}, err
}

// Manifests implements depot.Reader: those that have a tag.
func (s shelf) Manifests(ctx context.Context, repository, after string, n int) ([]digest.Digest, error) {
	tags, err := s.Tags(ctx, repository, "", -1)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, tag := range tags {
		if m, err := s.StatManifest(ctx, repository, tag); err == nil {
			list = append(list, m.Digest.String())
		}
	}
	var digests []digest.Digest
	for _, d := range page(list, after, n) {
		digests = append(digests, digest.Digest(d))
	}
	return digests, nil
}

// Referrers implements depot.Reader: an engine keeps none.
func (s shelf) Referrers(context.Context, string, digest.Digest, string, int) ([]depot.Manifest, error) {
	return nil, nil
}

// page cuts a list as depot.Reader says lists are cut.
func page(list []string, after string, n int) []string {
	slices.Sort(list)
	list = slices.Compact(list)
	if i, found := slices.BinarySearch(list, after); after != "" {
		if found {
			i++
		}
		list = list[i:]
	}
	if n >= 0 && len(list) > n {
		list = list[:n]
	}
	return list
}
