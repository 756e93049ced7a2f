package depot

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Missing says what a manifest names and its repository does not have. It is an
// errdefs.ErrNotFound.
type Missing struct {
	Repository string
	Digests    []digest.Digest
}

// Error names what is missing.
func (e *Missing) Error() string {
	list := make([]string, len(e.Digests))
	for i, d := range e.Digests {
		list[i] = d.String()
	}
	return fmt.Sprintf("repository %s does not have %s", e.Repository, strings.Join(list, ", "))
}

// Is gives the error its class.
func (e *Missing) Is(target error) bool { return target == errdefs.ErrNotFound }

// Mismatch says that bytes are not what they were said to be. It is an
// errdefs.ErrInvalidArgument.
type Mismatch struct {
	Want, Got digest.Digest
	// WantSize and GotSize are in bytes; WantSize is -1 when none was given.
	WantSize, GotSize int64
}

// Error says what differs.
func (e *Mismatch) Error() string {
	if e.WantSize >= 0 && e.WantSize != e.GotSize {
		return fmt.Sprintf("the content has %d bytes, not %d", e.GotSize, e.WantSize)
	}
	return fmt.Sprintf("the content has digest %s, not %s", e.Got, e.Want)
}

// Is gives the error its class.
func (e *Mismatch) Is(target error) bool { return target == errdefs.ErrInvalidArgument }

// BlobUnknown is the error for a blob that a repository does not have.
func BlobUnknown(repository string, dgst digest.Digest) error {
	return errs.NotFound("repository %s has no blob %s", repository, dgst)
}

// ManifestUnknown is the error for a manifest or tag that is not there.
func ManifestUnknown(repository, reference string) error {
	if strings.Contains(reference, ":") {
		return errs.NotFound("repository %s has no manifest %s", repository, reference)
	}
	return errs.NotFound("repository %s has no tag %s", repository, reference)
}

// UploadUnknown is the error for an upload that is not there.
func UploadUnknown(id string) error {
	return errs.NotFound("upload %s is not known: it was completed, cancelled or has expired", id)
}
