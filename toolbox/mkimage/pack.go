package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// epoch is the time of everything in the image: a build must not show when it
// was made.
func epoch() time.Time { return time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC) }

const image = "toolbox:latest"

// entry is one file of the image.
type entry struct {
	name, link string
	mode       int64
	data       []byte
}

// files is the root filesystem, in order.
func files(program []byte) []entry {
	list := []entry{
		{name: "bin/", mode: 0o755},
		{name: "bin/toolbox", mode: 0o755, data: program},
		{name: "dev/", mode: 0o755},
		{name: "etc/", mode: 0o755},
		{name: "etc/group", mode: 0o644, data: []byte("root:x:0:\nnogroup:x:65534:\n")},
		{name: "etc/nsswitch.conf", mode: 0o644, data: []byte("hosts: files dns\n")},
		{name: "etc/passwd", mode: 0o644, data: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")},
		{name: "home/", mode: 0o755},
		{name: "proc/", mode: 0o555},
		{name: "root/", mode: 0o700},
		{name: "run/", mode: 0o755},
		{name: "sys/", mode: 0o555},
		{name: "tmp/", mode: 0o1777},
		{name: "usr/", mode: 0o755},
		{name: "usr/bin/", mode: 0o755},
		{name: "usr/bin/env", link: "../../bin/toolbox", mode: 0o777},
		{name: "var/", mode: 0o755},
		{name: "var/tmp/", mode: 0o1777},
	}
	for _, name := range slices.Concat(theirs(), ours()) {
		list = append(list, entry{name: "bin/" + name, link: "toolbox", mode: 0o777})
	}
	slices.SortFunc(list, func(a, b entry) int { return bytes.Compare([]byte(a.name), []byte(b.name)) })
	return list
}

// packLayer packs the root filesystem; it returns the compressed layer and the
// digest of what is in it.
func packLayer(program string) (layer []byte, diffID string, err error) {
	data, err := os.ReadFile(program)
	if err != nil {
		return nil, "", err
	}
	var packed bytes.Buffer
	gz, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return nil, "", err
	}
	hash := sha256.New()
	if err := writeTar(io.MultiWriter(gz, hash), files(data)); err != nil {
		return nil, "", err
	}
	if err := gz.Close(); err != nil {
		return nil, "", err
	}
	return packed.Bytes(), fmt.Sprintf("sha256:%x", hash.Sum(nil)), nil
}

func writeTar(w io.Writer, list []entry) error {
	tw := tar.NewWriter(w)
	for _, e := range list {
		h := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.data)), ModTime: epoch(), Typeflag: tar.TypeReg}
		switch {
		case e.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		case e.name[len(e.name)-1] == '/':
			h.Typeflag = tar.TypeDir
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := tw.Write(e.data); err != nil {
			return err
		}
	}
	return tw.Close()
}

type object = map[string]any

func descriptor(mediaType string, data []byte) object {
	return object{"mediaType": mediaType, "digest": digest(data), "size": len(data)}
}

func digest(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

func blob(data []byte) string { return fmt.Sprintf("blobs/sha256/%x", sha256.Sum256(data)) }

// packImage writes an archive that is an OCI layout and a Docker archive at
// once. The layer in it is compressed already; the outer gzip is only a wrap.
func packImage(w io.Writer, layer []byte, diffID, arch string) error {
	created := epoch().Format(time.RFC3339)
	platform := object{"os": "linux", "architecture": arch}
	config := object{
		"created":      created,
		"os":           "linux",
		"architecture": arch,
		"config": object{
			"Env": []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			"Cmd": []string{"/bin/sh"},
			"Labels": object{
				"org.opencontainers.image.title":       "toolbox",
				"org.opencontainers.image.description": "A small userland of Go programs",
			},
		},
		"rootfs":  object{"type": "layers", "diff_ids": []string{diffID}},
		"history": []object{{"created": created, "created_by": "gantry toolbox/mkimage"}},
	}
	configData, err := json.Marshal(config)
	if err != nil {
		return err
	}
	manifest, err := json.Marshal(object{
		"schemaVersion": 2,
		"mediaType":     "application/vnd.oci.image.manifest.v1+json",
		"config":        descriptor("application/vnd.oci.image.config.v1+json", configData),
		"layers":        []object{descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer)},
	})
	if err != nil {
		return err
	}
	top := descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
	top["platform"] = platform
	top["annotations"] = object{
		"io.containerd.image.name":          "docker.io/library/" + image,
		"org.opencontainers.image.ref.name": image,
	}
	index, err := json.Marshal(object{
		"schemaVersion": 2,
		"mediaType":     "application/vnd.oci.image.index.v1+json",
		"manifests":     []object{top},
	})
	if err != nil {
		return err
	}
	docker, err := json.Marshal([]object{{"Config": blob(configData), "RepoTags": []string{image}, "Layers": []string{blob(layer)}}})
	if err != nil {
		return err
	}
	gz, err := gzip.NewWriterLevel(w, gzip.NoCompression)
	if err != nil {
		return err
	}
	err = writeTar(gz, []entry{
		{name: "blobs/", mode: 0o755},
		{name: "blobs/sha256/", mode: 0o755},
		{name: blob(configData), mode: 0o644, data: configData},
		{name: blob(manifest), mode: 0o644, data: manifest},
		{name: blob(layer), mode: 0o644, data: layer},
		{name: "index.json", mode: 0o644, data: index},
		{name: "manifest.json", mode: 0o644, data: docker},
		{name: "oci-layout", mode: 0o644, data: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
	})
	if err != nil {
		return err
	}
	return gz.Close()
}
