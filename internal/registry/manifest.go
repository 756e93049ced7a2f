package registry

import (
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
)

// MaxManifest is the largest manifest or index read, in bytes; what Docker and
// the registries allow.
const MaxManifest = 4 << 20

// Media types of Docker's own manifests, besides those of the OCI image
// specification.
const (
	MediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeDockerSchema1  = "application/vnd.docker.distribution.manifest.v1+json"
	MediaTypeDockerSigned1  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

func accepted() []string {
	return []string{
		ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest,
		MediaTypeDockerList, MediaTypeDockerManifest,
		// Asked for so that the refusal can say what the image is.
		MediaTypeDockerSigned1,
		"*/*",
	}
}

// Resolve asks what a tag or digest stands for, without fetching it.
func (r *Repository) Resolve(ctx context.Context, ref string) (desc ocispec.Descriptor, err error) {
	err = r.read(ctx, ref, func(e *endpoint) (err error) {
		desc, err = r.resolveAt(ctx, e, ref)
		return err
	})
	return desc, err
}

func (r *Repository) resolveAt(ctx context.Context, e *endpoint, ref string) (ocispec.Descriptor, error) {
	resp, err := e.do(ctx, r.path, call{method: http.MethodHead, path: "/manifests/" + ref, header: http.Header{"Accept": accepted()}})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	resp.Body.Close()
	dgst, err := digest.Parse(resp.Header.Get("Docker-Content-Digest"))
	asked, aerr := digest.Parse(ref)
	if resp.StatusCode == http.StatusOK && err == nil && resp.ContentLength >= 0 && (aerr != nil || asked == dgst) {
		return ocispec.Descriptor{MediaType: contentType(resp.Header), Digest: dgst, Size: resp.ContentLength}, nil
	}
	// A HEAD carries no words for what is wrong, and old registries leave
	// out the digest, or another is named than was asked for: the GET tells.
	desc, _, err := r.manifestAt(ctx, e, ref)
	return desc, err
}

// Manifest fetches a manifest or index by tag or by digest. Its bytes have the
// digest of the descriptor, and the one asked for when ref is a digest. Nothing
// else of it is checked.
func (r *Repository) Manifest(ctx context.Context, ref string) (desc ocispec.Descriptor, data []byte, err error) {
	err = r.read(ctx, ref, func(e *endpoint) (err error) {
		desc, data, err = r.manifestAt(ctx, e, ref)
		return err
	})
	return desc, data, err
}

func (r *Repository) manifestAt(ctx context.Context, e *endpoint, ref string) (ocispec.Descriptor, []byte, error) {
	var none ocispec.Descriptor
	if e.aide {
		// One that lets its answer drip keeps us from asking the next.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, aideAttempts*e.opts.IdleTimeout)
		defer cancel()
	}
	resp, err := e.do(ctx, r.path, call{method: http.MethodGet, path: "/manifests/" + ref, header: http.Header{"Accept": accepted()}})
	if err != nil {
		return none, nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return none, nil, refusal(e.host, resp)
	}
	defer resp.Body.Close()
	if isHTML(resp.Header) {
		return none, nil, errs.InvalidArgument("registry %s answered with a web page where a manifest was asked for", e.host)
	}
	if resp.ContentLength > MaxManifest {
		return none, nil, tooLarge(e.host)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxManifest+1))
	if err != nil {
		return none, nil, cannotReach(e.host, err)
	}
	if len(body) > MaxManifest {
		return none, nil, tooLarge(e.host)
	}
	if e.aide && !isVersioned(body) { // the registry's own answer is judged by who uses it
		return none, nil, errs.InvalidArgument("%s sent something else than a manifest for %s", e.host, ref)
	}
	return checkManifest(e.host, ref, resp.Header, body)
}

// isVersioned tells whether a document says which schema it follows, as every
// manifest and index has to.
func isVersioned(body []byte) bool {
	var doc struct {
		SchemaVersion int `json:"schemaVersion"`
	}
	return json.Unmarshal(body, &doc) == nil && doc.SchemaVersion > 0
}

func tooLarge(host string) error {
	return errs.InvalidArgument("registry %s sent a manifest larger than %d MiB", host, MaxManifest>>20)
}

// checkManifest holds the bytes against every digest that was named for them.
func checkManifest(host, ref string, h http.Header, body []byte) (ocispec.Descriptor, []byte, error) {
	desc := ocispec.Descriptor{MediaType: contentType(h), Digest: digest.FromBytes(body), Size: int64(len(body))}
	for _, claim := range []string{ref, h.Get("Docker-Content-Digest")} {
		want, err := digest.Parse(claim)
		if err != nil {
			continue // a tag, or no header
		}
		if got := want.Algorithm().FromBytes(body); got != want {
			return ocispec.Descriptor{}, nil, errs.InvalidArgument(
				"registry %s sent a manifest with digest %s where %s was asked for", host, got, want)
		}
		if claim == ref {
			desc.Digest = want
		}
	}
	var named struct {
		MediaType     string `json:"mediaType"`
		SchemaVersion int    `json:"schemaVersion"`
	}
	if err := json.Unmarshal(body, &named); err != nil {
		return ocispec.Descriptor{}, nil, errs.InvalidArgument("registry %s sent a manifest that is not JSON: %w", host, err)
	}
	if named.MediaType != "" {
		desc.MediaType = named.MediaType
	} else if named.SchemaVersion == 1 {
		desc.MediaType = MediaTypeDockerSchema1
	}
	return desc, body, nil
}

func contentType(h http.Header) string {
	t, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return t
}

// Tags lists every tag of the repository, following the pages of the answer.
func (r *Repository) Tags(ctx context.Context) ([]string, error) {
	var tags []string
	next := "/tags/list?n=1000"
	for seen := map[string]bool{}; next != ""; {
		if seen[next] || len(seen) > maxPages {
			return nil, errs.InvalidArgument("registry %s lists its tags in a circle", r.host)
		}
		seen[next] = true
		resp, err := r.origin.do(ctx, r.path, call{method: http.MethodGet, path: next})
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			return nil, refusal(r.host, resp)
		}
		var page struct{ Tags []string }
		err = json.NewDecoder(io.LimitReader(resp.Body, 8<<20)).Decode(&page)
		resp.Body.Close()
		if err != nil {
			return nil, errs.InvalidArgument("registry %s sent a list of tags that is not JSON: %w", r.host, err)
		}
		tags = append(tags, page.Tags...)
		next = nextPage("/tags/list", resp.Header.Get("Link"))
	}
	return tags, nil
}

// nextPage reads a Link header (RFC 5988), of which only the query matters: the
// next page is a page of the same list.
func nextPage(path, link string) string {
	start, end := strings.IndexByte(link, '<'), strings.IndexByte(link, '>')
	if start < 0 || end < start || !strings.Contains(link[end:], "next") {
		return ""
	}
	u, err := url.Parse(link[start+1 : end])
	if err != nil || u.RawQuery == "" {
		return ""
	}
	return path + "?" + u.RawQuery
}
