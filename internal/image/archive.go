package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/layer"
	"github.com/gantry-containers/gantry/internal/registry"
)

const (
	maxEntries   = 1 << 20 // of an image archive
	maxLinkDepth = 16
)

// archive is an image archive after it was read: its files are blobs in the
// store, under the names they had.
type archive struct {
	files map[string]file
	links map[string]string // name to name
}

type file struct {
	digest digest.Digest
	size   int64
}

// spool reads an archive from a stream, compressed or not, and stores every
// file of it as a blob.
func spool(ctx context.Context, in *ingest, r io.Reader) (*archive, error) {
	plain, _, err := layer.Decompress(r)
	if err != nil {
		return nil, errs.InvalidArgument("cannot read the archive: %w", err)
	}
	defer plain.Close()
	a := &archive{files: map[string]file{}, links: map[string]string{}}
	tr := tar.NewReader(plain)
	for entries := 0; ; entries++ {
		header, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, archiveError(err)
		}
		if entries == maxEntries {
			return nil, errs.InvalidArgument("the archive has more than %d entries: it is no image archive", maxEntries)
		}
		if err := a.add(ctx, in, header, tr); err != nil {
			return nil, err
		}
	}
	// To the end of the stream: a cut one must not pass, and whoever sends
	// it must not be left with a broken pipe.
	if _, err := io.Copy(io.Discard, plain); err != nil {
		return nil, archiveError(err)
	}
	return a, nil
}

func archiveError(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errs.InvalidArgument("the archive ends in the middle: %w", err)
	}
	return errs.InvalidArgument("cannot read the archive: %w", err)
}

func (a *archive) add(ctx context.Context, in *ingest, header *tar.Header, r io.Reader) error {
	name, err := archiveName(header.Name)
	if err != nil {
		return err
	}
	switch header.Typeflag {
	case tar.TypeReg:
		var expected digest.Digest
		if rest, ok := strings.CutPrefix(name, "blobs/"); ok {
			algorithm, hex, _ := strings.Cut(rest, "/")
			expected = digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
			if expected.Validate() != nil {
				return errs.InvalidArgument("the archive has %s, which is not named by a digest", name)
			}
		}
		dgst, size, err := in.put(ctx, r, expected, header.Size)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return archiveError(err)
		}
		if err != nil {
			return fmt.Errorf("cannot read %s of the archive: %w", name, damaged(err))
		}
		a.files[name] = file{dgst, size}
	case tar.TypeSymlink:
		// Relative to the link's place; of Docker's legacy layout.
		target, err := archiveName(path.Join(path.Dir(name), header.Linkname))
		if err != nil || path.IsAbs(header.Linkname) {
			return errs.InvalidArgument("the archive has a link out of it: %s -> %s", header.Name, header.Linkname)
		}
		a.links[name] = target
	case tar.TypeLink:
		target, err := archiveName(header.Linkname)
		if err != nil {
			return err
		}
		a.links[name] = target
	}
	return nil // directories matter to nobody; devices have no business here
}

// archiveName is the clean name of an entry, which must be within the archive.
func archiveName(name string) (string, error) {
	clean := path.Clean(name)
	if path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") || strings.ContainsRune(clean, 0) {
		return "", errs.InvalidArgument("the archive has a path out of it: %q", name)
	}
	return clean, nil
}

// lookup finds a file by name, through links.
func (a *archive) lookup(name string) (file, error) {
	clean, err := archiveName(name)
	if err != nil {
		return file{}, err
	}
	for range maxLinkDepth {
		if f, ok := a.files[clean]; ok {
			return f, nil
		}
		target, ok := a.links[clean]
		if !ok {
			return file{}, errs.InvalidArgument("the archive has no %s, which it refers to", name)
		}
		clean = target
	}
	return file{}, errs.InvalidArgument("the archive has links in a circle: %s", name)
}

func (a *archive) has(name string) bool {
	_, err := a.lookup(name)
	return err == nil
}

// json reads a file of the archive into v.
func (a *archive) json(in *ingest, name string, v any) error {
	f, err := a.lookup(name)
	if err != nil {
		return err
	}
	if f.size > registry.MaxManifest {
		return errs.InvalidArgument("%s of the archive is larger than %d MiB", name, registry.MaxManifest>>20)
	}
	data, err := in.m.opts.Content.ReadAll(f.digest, registry.MaxManifest)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return errs.InvalidArgument("%s of the archive is not what it should be: %w", name, err)
	}
	return nil
}
