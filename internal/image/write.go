package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// archiveWriter writes each file of an archive once.
type archiveWriter struct {
	m    *Manager
	tw   *tar.Writer
	done map[string]bool
}

func blobName(d digest.Digest) string {
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()
}

func (aw *archiveWriter) image(ctx context.Context, img *saved) error {
	if img.index != nil {
		if err := aw.document(img.target.Digest, img.index, img.created); err != nil {
			return err
		}
	}
	for _, part := range img.parts {
		if err := aw.document(part.desc.Digest, part.data, img.created); err != nil {
			return err
		}
		for _, d := range part.blobs {
			if err := aw.blob(ctx, d.Digest, img.created); err != nil {
				return err
			}
		}
	}
	return nil
}

// directories writes the entries some readers of layouts expect.
func (aw *archiveWriter) directories(algorithm string, created time.Time) error {
	for _, dir := range []string{"blobs/", "blobs/" + algorithm + "/"} {
		if aw.done[dir] {
			continue
		}
		aw.done[dir] = true
		err := aw.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: created})
		if err != nil {
			return err
		}
	}
	return nil
}

// document writes a blob that is in memory.
func (aw *archiveWriter) document(d digest.Digest, data []byte, created time.Time) error {
	if err := aw.directories(d.Algorithm().String(), created); err != nil {
		return err
	}
	return aw.bytes(blobName(d), data, created)
}

func (aw *archiveWriter) blob(ctx context.Context, d digest.Digest, created time.Time) error {
	name := blobName(d)
	if aw.done[name] {
		return nil
	}
	aw.done[name] = true
	if err := aw.directories(d.Algorithm().String(), created); err != nil {
		return err
	}
	f, err := aw.m.opts.Content.Open(d)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	err = aw.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: info.Size(), Mode: 0o644, ModTime: created})
	if err != nil {
		return err
	}
	_, err = io.Copy(aw.tw, &reader{ctx, f})
	return err
}

func (aw *archiveWriter) bytes(name string, data []byte, created time.Time) error {
	if aw.done[name] {
		return nil
	}
	aw.done[name] = true
	err := aw.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o644, ModTime: created})
	if err != nil {
		return err
	}
	_, err = aw.tw.Write(data)
	return err
}

// tables writes what says which blobs make up which image.
func (aw *archiveWriter) tables(images []*saved) error {
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{},
	}
	entries := []dockerEntry{}
	for _, img := range images {
		desc := img.target
		if img.index == nil {
			desc.Platform = &img.main.platform
		}
		if len(img.tags) == 0 {
			index.Manifests = append(index.Manifests, desc)
		}
		entry := img.main.dockerEntry()
		for _, tag := range img.tags {
			entry.RepoTags = append(entry.RepoTags, reference.FamiliarString(tag))
			desc.Annotations = map[string]string{annotationContainerd: tag.String(), ocispec.AnnotationRefName: tag.Tag()}
			index.Manifests = append(index.Manifests, desc)
		}
		entries = append(entries, entry)
	}
	for _, t := range []struct {
		name string
		v    any
	}{
		{ocispec.ImageIndexFile, index},
		{"manifest.json", entries},
		{ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}},
	} {
		data, err := json.Marshal(t.v)
		if err != nil {
			return err
		}
		if err := aw.bytes(t.name, data, time.Unix(0, 0)); err != nil {
			return err
		}
	}
	return nil
}

// dockerEntry is the image as manifest.json has it.
func (out *outgoing) dockerEntry() dockerEntry {
	entry := dockerEntry{Config: blobName(out.image.id), Layers: []string{}, LayerSources: map[digest.Digest]ocispec.Descriptor{}}
	for i, d := range out.layers {
		entry.Layers = append(entry.Layers, blobName(d.Digest))
		entry.LayerSources[out.image.Layers[i].DiffID] = bare(d)
	}
	return entry
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}
