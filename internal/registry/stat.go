package registry

import (
	"context"
	"net/http"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
)

// StatBlob asks for the size of a blob (OCI distribution specification 1.1,
// "Checking if content exists in the registry"). Fails with errdefs.ErrNotFound.
func (r *Repository) StatBlob(ctx context.Context, dgst digest.Digest) (ocispec.Descriptor, error) {
	resp, err := r.send(ctx, call{method: http.MethodHead, path: "/blobs/" + dgst.String()})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return ocispec.Descriptor{}, refusal(r.host, resp)
	}
	resp.Body.Close()
	if resp.ContentLength < 0 {
		return ocispec.Descriptor{}, errs.Unavailable("registry %s does not say how large blob %s is", r.host, dgst)
	}
	return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: dgst, Size: resp.ContentLength}, nil
}
