package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
)

// PushManifest puts a manifest or index under a tag or its digest, and returns
// the digest the registry knows it by (OCI distribution specification 1.1,
// "Pushing Manifests"). What it names must be there. A manifest that refers to
// another, as its subject, is listed among the referrers of that one also where
// the registry does not do so itself.
func (r *Repository) PushManifest(ctx context.Context, ref, mediaType string, body []byte) (digest.Digest, error) {
	if len(body) > MaxManifest {
		return "", errs.InvalidArgument("a manifest of %d bytes is larger than the %d MiB registries take", len(body), MaxManifest>>20)
	}
	dgst := digest.FromBytes(body)
	if want, err := digest.Parse(ref); err == nil {
		if dgst = want.Algorithm().FromBytes(body); dgst != want {
			return "", errs.InvalidArgument("the manifest has digest %s and cannot be pushed as %s", dgst, want)
		}
	}
	resp, err := r.send(ctx, call{
		method: http.MethodPut, path: "/manifests/" + ref, actions: pushing,
		header: http.Header{"Content-Type": {mediaType}},
		body:   func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
		length: int64(len(body)), repeat: true,
	})
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusAccepted {
		return "", refusal(r.host, resp)
	}
	drain(resp)
	if got, err := digest.Parse(resp.Header.Get("Docker-Content-Digest")); err == nil && got != got.Algorithm().FromBytes(body) {
		return "", errs.InvalidArgument("registry %s took manifest %s in as %s", r.host, dgst, got)
	}
	if resp.Header.Get("OCI-Subject") == "" {
		if err := r.listReferrer(ctx, dgst, mediaType, body); err != nil {
			return "", err
		}
	}
	return dgst, nil
}

// Delete removes a tag, or a manifest with all its tags when ref is a digest.
// Registries that do not let tags or anything be deleted answer an errdefs.
// ErrNotImplemented.
func (r *Repository) Delete(ctx context.Context, ref string) error {
	resp, err := r.send(ctx, call{method: http.MethodDelete, path: "/manifests/" + ref, actions: deleting})
	if err != nil {
		return err
	}
	switch resp.StatusCode {
	case http.StatusAccepted, http.StatusOK, http.StatusNoContent:
		drain(resp)
		return nil
	case http.StatusMethodNotAllowed:
		return errs.NotImplemented("registry %s does not let manifests be deleted: %w", r.host, refusal(r.host, resp))
	}
	err = refusal(r.host, resp)
	if _, perr := digest.Parse(ref); perr != nil && resp.StatusCode == http.StatusBadRequest {
		return errs.NotImplemented("registry %s does not let a tag be deleted, only a digest: %w", r.host, err)
	}
	return err
}

// referrer is what a manifest says of itself as one that refers to another.
type referrer struct {
	Subject      *ocispec.Descriptor `json:"subject"`
	ArtifactType string              `json:"artifactType"`
	Config       struct {
		MediaType string `json:"mediaType"`
	} `json:"config"`
	Annotations map[string]string `json:"annotations"`
}

// listReferrer adds a manifest that has a subject to the list under the
// subject's tag, as the specification asks of clients whose registry does not
// know referrers ("Pushing Manifests with Subject").
func (r *Repository) listReferrer(ctx context.Context, dgst digest.Digest, mediaType string, body []byte) error {
	var said referrer
	if json.Unmarshal(body, &said) != nil || said.Subject == nil || said.Subject.Digest.Validate() != nil {
		return nil
	}
	desc := ocispec.Descriptor{
		MediaType: mediaType, Digest: dgst, Size: int64(len(body)),
		ArtifactType: said.ArtifactType, Annotations: said.Annotations,
	}
	if desc.ArtifactType == "" {
		desc.ArtifactType = said.Config.MediaType
	}
	list, err := r.taggedReferrers(ctx, said.Subject.Digest)
	if err != nil {
		return err
	}
	for _, known := range list {
		if known.Digest == dgst {
			return nil
		}
	}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: append(list, desc)}
	index.SchemaVersion = 2
	data, err := json.Marshal(index)
	if err != nil {
		return errs.System("cannot write the list of referrers of %s: %w", said.Subject.Digest, err)
	}
	_, err = r.PushManifest(ctx, referrersTag(said.Subject.Digest), ocispec.MediaTypeImageIndex, data)
	return err
}
