package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// store keeps lists that are being put together: a directory for each, and in
// that a file for each of its manifests. Both are called as their references,
// with - for : and _ for /.
type store struct{ root string }

// errNoList is worded as Docker words it.
type errNoList struct{ ref string }

func (e *errNoList) Error() string { return "No such manifest: " + e.ref }

func isNoList(err error) bool {
	var e *errNoList
	return errors.As(err, &e)
}

func (s *store) path(refs ...reference.Named) string {
	parts := []string{s.root}
	for _, r := range refs {
		parts = append(parts, strings.NewReplacer(":", "-", "/", "_").Replace(r.String()))
	}
	return filepath.Join(parts...)
}

// get returns one manifest of a list.
func (s *store) get(list, ref reference.Named) (*image, error) {
	return s.read(s.path(list, ref), ref)
}

// all returns the manifests of a list, in the order of their names.
func (s *store) all(list reference.Named) ([]*image, error) {
	dir := s.path(list)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &errNoList{list.String()}
	}
	if err != nil {
		return nil, err
	}
	images := []*image{}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue // one that was not written to its end
		}
		i, err := s.read(filepath.Join(dir, e.Name()), list)
		if err != nil {
			return nil, err
		}
		images = append(images, i)
	}
	return images, nil
}

func (s *store) read(name string, ref reference.Named) (*image, error) {
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &errNoList{ref.String()}
	}
	if err != nil {
		return nil, err
	}
	return parseImage(name, text)
}

// parseImage reads a file of the store, also one of the clients before there was
// a descriptor in it.
func parseImage(name string, text []byte) (*image, error) {
	var kept struct {
		image
		Digest   digest.Digest
		Platform *ocispec.Platform
	}
	if err := json.Unmarshal(text, &kept); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	}
	i := &kept.image
	if _, err := i.name(); err != nil {
		return nil, fmt.Errorf("cannot read %s: invalid named reference %q: %w", name, i.Ref, err)
	}
	if i.shown() == nil {
		return nil, fmt.Errorf("cannot read %s: %s has no payload", name, i.Ref)
	}
	if kept.Digest != "" {
		i.Descriptor.Digest, i.Descriptor.Platform = kept.Digest, kept.Platform
		body, err := i.payload()
		if err != nil {
			return nil, fmt.Errorf("invalid manifest file %s: %w", name, err)
		}
		var m struct {
			MediaType string `json:"mediaType"`
		}
		_ = json.Unmarshal(body, &m) // it was JSON within JSON
		i.Descriptor.MediaType, i.Descriptor.Size = m.MediaType, int64(len(body))
	}
	return i, nil
}

// save adds a manifest to a list, or replaces it.
func (s *store) save(list, ref reference.Named, i *image) error {
	text, err := json.Marshal(i)
	if err != nil {
		return err
	}
	name := s.path(list, ref)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), ".new*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(text)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		os.Remove(tmp.Name())
	}
	return err
}

func (s *store) remove(list reference.Named) error { return os.RemoveAll(s.path(list)) }
