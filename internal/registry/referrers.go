package registry

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Referrers lists the manifests whose subject is the given one, of one artifact
// type or, with "", of all (OCI distribution specification 1.1, "Listing
// Referrers"). A registry without that call is asked for the list under the
// referrers tag. No referrers is no error.
func (r *Repository) Referrers(ctx context.Context, dgst digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	if err := dgst.Validate(); err != nil {
		return nil, errs.InvalidArgument("referrers of %q cannot be asked for: %w", dgst, err)
	}
	first := "/referrers/" + dgst.String()
	if artifactType != "" {
		first += "?artifactType=" + url.QueryEscape(artifactType)
	}
	list, err := r.referrerPages(ctx, "/referrers/"+dgst.String(), first)
	if errors.Is(err, errNoReferrers) {
		list, err = r.taggedReferrers(ctx, dgst)
	}
	if err != nil || artifactType == "" {
		return list, err
	}
	// Registries may leave the filter to us.
	return slices.DeleteFunc(list, func(d ocispec.Descriptor) bool { return d.ArtifactType != artifactType }), nil
}

// errNoReferrers is of a registry that does not have the call.
var errNoReferrers = errors.New("the registry does not know referrers")

// maxPages bounds how long a list may be made.
const maxPages = 10000

func (r *Repository) referrerPages(ctx context.Context, path, next string) (list []ocispec.Descriptor, err error) {
	for seen := map[string]bool{}; next != ""; {
		if seen[next] || len(seen) > maxPages {
			return nil, errs.InvalidArgument("registry %s lists referrers in a circle", r.host)
		}
		seen[next] = true
		resp, err := r.origin.do(ctx, r.path, call{method: http.MethodGet, path: next, header: http.Header{"Accept": {ocispec.MediaTypeImageIndex}}})
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusMethodNotAllowed || isHTML(resp.Header) {
			drain(resp)
			return nil, errNoReferrers
		}
		if resp.StatusCode != http.StatusOK {
			return nil, refusal(r.host, resp)
		}
		page, err := r.readIndex(resp.Body)
		if err != nil {
			return nil, err
		}
		list = append(list, page...)
		next = nextPage(path, resp.Header.Get("Link"))
	}
	return list, nil
}

// readIndex reads and closes an index of referrers.
func (r *Repository) readIndex(body io.ReadCloser) ([]ocispec.Descriptor, error) {
	defer body.Close()
	var index ocispec.Index
	if err := json.NewDecoder(io.LimitReader(body, MaxManifest)).Decode(&index); err != nil {
		return nil, errs.InvalidArgument("registry %s sent a list of referrers that cannot be read: %w", r.host, err)
	}
	return index.Manifests, nil
}

// taggedReferrers reads the list under the referrers tag.
func (r *Repository) taggedReferrers(ctx context.Context, dgst digest.Digest) ([]ocispec.Descriptor, error) {
	_, data, err := r.Manifest(ctx, referrersTag(dgst))
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, errs.InvalidArgument("registry %s sent a list of referrers that cannot be read: %w", r.host, err)
	}
	return index.Manifests, nil
}

// referrersTag is the tag that lists the referrers of a manifest ("Referrers
// Tag Schema").
func referrersTag(dgst digest.Digest) string {
	cut := func(s string, n int) string {
		clean := strings.Map(func(c rune) rune {
			if c == '_' || c == '.' || c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
				return c
			}
			return '-'
		}, s)
		return clean[:min(len(clean), n)]
	}
	return cut(dgst.Algorithm().String(), 32) + "-" + cut(dgst.Encoded(), 64)
}
