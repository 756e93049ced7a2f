package serve

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func contentTypeParameters(p *peer) error {
	r := p.repository()
	body, err := p.image(r)
	if err != nil {
		return err
	}
	if _, err := p.want(201, "PUT", manifestPath(r, "t"), body, "Content-Type", ociManifest+"; charset=utf-8"); err != nil {
		return err
	}
	a, err := p.want(200, "GET", manifestPath(r, "t"), nil, "Accept", acceptAll)
	return first(err, a.has("Content-Type", ociManifest))
}

func exactBytes(p *peer) error {
	r := p.repository()
	body, err := p.image(r)
	if err != nil {
		return err
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, body, "\t", "  "); err != nil {
		return err
	}
	body = append([]byte("\n "), append(indented.Bytes(), " \n\n"...)...)
	if err := p.put(r, "t", body); err != nil {
		return err
	}
	a, err := p.want(200, "GET", manifestPath(r, digest.FromBytes(body).String()), nil, "Accept", acceptAll)
	if err == nil && !bytes.Equal(a.body, body) {
		err = a.errorf("sent %q", a.body)
	}
	return err
}

func putManifestAnswer(p *peer) error {
	r := p.repository()
	body, err := p.image(r)
	if err != nil {
		return err
	}
	dgst := digest.FromBytes(body).String()
	for _, reference := range []string{"t", dgst} {
		a, err := p.want(201, "PUT", manifestPath(r, reference), body, "Content-Type", ociManifest)
		if err := first(err, a.has("Docker-Content-Digest", dgst)); err != nil {
			return err
		}
		if err := p.pullable(a, body); err != nil {
			return err
		}
	}
	long := digest.SHA512.FromBytes(body).String()
	a, err := p.want(201, "PUT", manifestPath(r, long), body, "Content-Type", ociManifest)
	if err := first(err, a.has("Docker-Content-Digest", long)); err != nil {
		return err
	}
	return p.pullable(a, body)
}

func noLayers(p *peer) error {
	r := p.repository()
	body, err := p.image(r, func(m *ocispec.Manifest) { m.Layers = []ocispec.Descriptor{} })
	if err != nil {
		return err
	}
	return p.put(r, "t", body)
}

func manyTags(p *peer) error {
	r := p.repository()
	body, err := p.image(r)
	if err != nil {
		return err
	}
	var want []string
	query := ""
	for i := range 10 {
		want = append(want, fmt.Sprint("v", i))
		query += fmt.Sprint("&tag=v", i)
	}
	a, err := p.want(201, "PUT", manifestPath(r, digest.FromBytes(body).String())+"?"+query[1:], body, "Content-Type", ociManifest)
	if err != nil {
		return err
	}
	var got []string
	for _, value := range a.header.Values("OCI-Tag") {
		for one := range strings.SplitSeq(value, ",") {
			got = append(got, strings.TrimSpace(one))
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		return a.errorf("OCI-Tag names %q", got)
	}
	for _, tag := range want {
		if _, err := p.want(200, "HEAD", manifestPath(r, tag), nil, "Accept", acceptAll); err != nil {
			return err
		}
	}
	return nil
}

func manifestLimit(p *peer) error {
	r := p.repository()
	for size, status := range map[int]int{4 << 20: 201, 64 << 20: 413} {
		body, err := p.image(r, func(m *ocispec.Manifest) { m.Annotations = map[string]string{"x": ""} })
		if err != nil {
			return err
		}
		body = bytes.Replace(body, []byte(`"x":""`), []byte(`"x":"`+strings.Repeat("x", size-len(body))+`"`), 1)
		a, err := p.do("PUT", manifestPath(r, "big"), body, "Content-Type", ociManifest)
		if err != nil {
			return err
		}
		if a.status != status {
			return a.errorf("%d bytes were answered %d, not %d", len(body), a.status, status)
		}
	}
	return nil
}

func subjectHeader(p *peer) error {
	r := p.repository()
	subject := digest.FromString("a subject")
	body, err := p.image(r, func(m *ocispec.Manifest) {
		m.Subject = &ocispec.Descriptor{MediaType: ociManifest, Digest: subject, Size: 9}
	})
	if err != nil {
		return err
	}
	a, err := p.want(201, "PUT", manifestPath(r, "t"), body, "Content-Type", ociManifest)
	return first(err, a.has("OCI-Subject", subject.String()))
}
