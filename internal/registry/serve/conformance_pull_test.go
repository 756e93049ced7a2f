package serve

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// wholeLife goes through every category once.
func wholeLife(p *peer) error {
	r := p.repository()
	body, err := p.tagged(r, "v1")
	if err != nil {
		return err
	}
	dgst := digest.FromBytes(body).String()
	for _, step := range []struct {
		status       int
		method, path string
	}{
		{200, "GET", manifestPath(r, "v1")},
		{200, "GET", "/v2/" + r + "/tags/list"},
		{200, "GET", "/v2/" + r + "/referrers/" + dgst},
		{202, "DELETE", manifestPath(r, dgst)},
		{404, "GET", manifestPath(r, "v1")},
	} {
		if _, err := p.want(step.status, step.method, step.path, nil, "Accept", acceptAll); err != nil {
			return err
		}
	}
	return nil
}

func repositoryNames(p *peer) error {
	for _, name := range []string{"a", "a/b/c/d", "a.b", "a_b", "a__b", "a--b", "0-9/x"} {
		if _, err := p.tagged(p.repository()+"/"+name, "t"); err != nil {
			return err
		}
	}
	for _, name := range []string{"A", "a..b", "a___b", "-a", "a-", "a%20b", "%C3%A4", "a/./b"} {
		a, err := p.do("POST", "/v2/"+p.prefix+"/"+name+"/blobs/uploads/", []byte{})
		if err != nil {
			return err
		}
		if a.status < 300 || a.status >= 500 {
			return a.errorf("answered %d", a.status)
		}
	}
	return nil
}

func tagNames(p *peer) error {
	r := p.repository()
	body, err := p.tagged(r, "_", "A.b-c", "0", strings.Repeat("x", 128))
	if err != nil {
		return err
	}
	for _, tag := range []string{"-a", ".a", "a+b", "a%2Fb", "a%20b", strings.Repeat("x", 129)} {
		a, err := p.do("PUT", manifestPath(r, tag), body, "Content-Type", ociManifest)
		if err != nil {
			return err
		}
		if a.status < 400 || a.status >= 500 {
			return a.errorf("answered %d", a.status)
		}
	}
	return nil
}

func otherReferences(p *peer) error {
	r := p.repository()
	body, err := p.tagged(r, "t")
	if err != nil {
		return err
	}
	hex := digest.FromBytes(body).Encoded()
	for _, reference := range []string{"sha256:" + hex[:63], "sha256:" + strings.ToUpper(hex), "md5:" + hex[:32], "sha256-" + hex + ":x", "t@sha256:" + hex} {
		a, err := p.do("GET", manifestPath(r, reference), nil, "Accept", acceptAll)
		if err != nil {
			return err
		}
		if a.status != 400 && a.status != 404 {
			return a.errorf("answered %d", a.status)
		}
	}
	return nil
}

func contentTypes(p *peer) error {
	r := p.repository()
	body, err := p.tagged(r, "t")
	if err != nil {
		return err
	}
	index := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, ociIndex, ociManifest, digest.FromBytes(body), len(body)))
	if _, err := p.want(201, "PUT", manifestPath(r, "i"), index, "Content-Type", ociIndex); err != nil {
		return err
	}
	for tag, mediaType := range map[string]string{"t": ociManifest, "i": ociIndex} {
		a, err := p.want(200, "GET", manifestPath(r, tag), nil, "Accept", acceptAll)
		if err := first(err, a.has("Content-Type", mediaType)); err != nil {
			return err
		}
	}
	return nil
}

func pullManifest(p *peer) error {
	r := p.repository()
	body, err := p.tagged(r, "t")
	if err != nil {
		return err
	}
	for _, reference := range []string{"t", digest.FromBytes(body).String()} {
		a, err := p.want(200, "GET", manifestPath(r, reference), nil, "Accept", acceptAll)
		if err != nil {
			return err
		}
		if !bytes.Equal(a.body, body) {
			return a.errorf("sent %q, not %q", a.body, body)
		}
	}
	return nil
}

func manifestDigest(p *peer) error {
	r := p.repository()
	body, err := p.tagged(r, "t")
	if err != nil {
		return err
	}
	a, err := p.want(200, "GET", manifestPath(r, "t"), nil, "Accept", acceptAll)
	return first(err, a.has("Docker-Content-Digest", digest.FromBytes(body).String()))
}

func manifest404(p *peer) error {
	r := p.repository()
	if _, err := p.tagged(r, "t"); err != nil {
		return err
	}
	for _, reference := range []string{"u", digest.FromString("nothing").String()} {
		a, err := p.want(404, "GET", manifestPath(r, reference), nil, "Accept", acceptAll)
		if err := first(err, a.code("MANIFEST_UNKNOWN")); err != nil {
			return err
		}
	}
	return nil
}

// contents are blobs that a registry may keep in different ways.
func contents() [][]byte {
	return [][]byte{{}, []byte("small"), bytes.Repeat([]byte("large "), 50_000)}
}

func pullBlob(p *peer) error {
	r := p.repository()
	for _, data := range contents() {
		dgst, err := p.push(r, data)
		if err != nil {
			return err
		}
		a, err := p.want(200, "GET", blobPath(r, dgst), nil)
		if err != nil {
			return err
		}
		if !bytes.Equal(a.body, data) {
			return a.errorf("sent %d bytes, not the %d", len(a.body), len(data))
		}
	}
	return nil
}

func blobDigest(p *peer) error {
	r := p.repository()
	dgst, err := p.push(r, []byte("content"))
	if err != nil {
		return err
	}
	a, err := p.want(200, "GET", blobPath(r, dgst), nil)
	return first(err, a.has("Docker-Content-Digest", digest.FromBytes(a.body).String()))
}

func blob404(p *peer) error {
	r, other := p.repository(), p.repository()
	dgst, err := p.push(r, []byte("here"))
	if err != nil {
		return err
	}
	if _, err := p.push(other, []byte("there")); err != nil {
		return err
	}
	for _, path := range []string{blobPath(r, digest.FromString("nowhere")), blobPath(other, dgst)} {
		a, err := p.want(404, "GET", path, nil)
		if err := first(err, a.code("BLOB_UNKNOWN")); err != nil {
			return err
		}
	}
	return nil
}

func blobRanges(p *peer) error {
	r := p.repository()
	for _, data := range contents()[1:] {
		dgst, err := p.push(r, data)
		if err != nil {
			return err
		}
		n := len(data)
		for spec, want := range map[string]string{
			"bytes=0-1":                    string(data[:2]),
			"bytes=2-":                     string(data[2:]),
			"bytes=-2":                     string(data[n-2:]),
			fmt.Sprintf("bytes=1-%d", 2*n): string(data[1:]),
		} {
			a, err := p.want(206, "GET", blobPath(r, dgst), nil, "Range", spec)
			if err != nil {
				return err
			}
			if string(a.body) != want {
				return a.errorf("%s sent %d bytes, not %d", spec, len(a.body), len(want))
			}
			if !strings.HasSuffix(a.header.Get("Content-Range"), fmt.Sprintf("/%d", n)) {
				return a.errorf("%s: Content-Range %q", spec, a.header.Get("Content-Range"))
			}
		}
		if _, err := p.want(416, "GET", blobPath(r, dgst), nil, "Range", fmt.Sprintf("bytes=%d-", n)); err != nil {
			return err
		}
	}
	return nil
}

func headContent(p *peer) error {
	r := p.repository()
	body, err := p.tagged(r, "t")
	if err != nil {
		return err
	}
	of := map[string][]byte{manifestPath(r, "t"): body, manifestPath(r, digest.FromBytes(body).String()): body}
	for _, data := range contents() {
		dgst, err := p.push(r, data)
		if err != nil {
			return err
		}
		of[blobPath(r, dgst)] = data
	}
	for path, data := range of {
		a, err := p.want(200, "HEAD", path, nil, "Accept", acceptAll)
		err = first(err,
			a.has("Docker-Content-Digest", digest.FromBytes(data).String()),
			a.has("Content-Length", fmt.Sprint(len(data))))
		if err != nil {
			return err
		}
	}
	return nil
}

func head404(p *peer) error {
	r := p.repository()
	if _, err := p.tagged(r, "t"); err != nil {
		return err
	}
	nothing := digest.FromString("nothing")
	for _, path := range []string{manifestPath(r, "u"), manifestPath(r, nothing.String()), blobPath(r, nothing), blobPath(r+"/not", nothing)} {
		if _, err := p.want(404, "HEAD", path, nil, "Accept", acceptAll); err != nil {
			return err
		}
	}
	return nil
}

func repository404(p *peer) error {
	r := p.repository()
	for _, path := range []string{manifestPath(r, "latest"), "/v2/" + r + "/tags/list", blobPath(r, digest.FromString("x"))} {
		a, err := p.want(404, "GET", path, nil, "Accept", acceptAll)
		if err := first(err, a.code("")); err != nil {
			return err
		}
	}
	return nil
}

func support(p *peer) error {
	_, err := p.want(200, "GET", "/v2/", nil)
	return err
}

// namespaceQuery sends the parameter by which clients tell a proxy whom they
// mean.
func namespaceQuery(p *peer) error {
	r := p.repository()
	if _, err := p.tagged(r, "t"); err != nil {
		return err
	}
	_, err := p.want(200, "GET", manifestPath(r, "t")+"?ns=registry.example", nil, "Accept", acceptAll)
	return err
}

// httpSemantics is what RFC 9110 asks: 405 with Allow, entity tags, HEAD without
// a body.
func httpSemantics(p *peer) error {
	r := p.repository()
	body, err := p.tagged(r, "t")
	if err != nil {
		return err
	}
	a, err := p.want(405, "POST", manifestPath(r, "t"), []byte("x"))
	if err != nil {
		return err
	}
	if !strings.Contains(a.header.Get("Allow"), "PUT") {
		return a.errorf("Allow is %q", a.header.Get("Allow"))
	}
	config := digest.FromString(`{"architecture":"amd64","os":"linux"}`)
	for _, path := range []string{manifestPath(r, "t"), blobPath(r, config)} {
		a, err := p.want(200, "GET", path, nil, "Accept", acceptAll)
		if err != nil {
			return err
		}
		tag := a.header.Get("Etag")
		if tag == "" {
			return a.errorf("has no ETag")
		}
		if _, err := p.want(304, "GET", path, nil, "Accept", acceptAll, "If-None-Match", tag); err != nil {
			return err
		}
		if _, err := p.want(200, "GET", path, nil, "Accept", acceptAll, "If-None-Match", `"another"`); err != nil {
			return err
		}
	}
	// A tag is only moved by who knows where it is.
	moved, err := p.image(r, func(m *ocispec.Manifest) { m.Annotations = map[string]string{"moved": "1"} })
	if err != nil {
		return err
	}
	headers := []string{"Content-Type", ociManifest, "If-Match"}
	if _, err := p.want(412, "PUT", manifestPath(r, "t"), moved, append(headers, `"another"`)...); err != nil {
		return err
	}
	_, err = p.want(201, "PUT", manifestPath(r, "t"), moved, append(headers, `"`+digest.FromBytes(body).String()+`"`)...)
	return err
}

// errorDocuments has the registry refuse for each of the reasons of the table
// that a request can bring about.
func errorDocuments(p *peer) error {
	r := p.repository()
	body, err := p.tagged(r, "t")
	if err != nil {
		return err
	}
	location, err := p.start(r)
	if err != nil {
		return err
	}
	gone := location[:strings.Index(location, "/blobs/uploads/")] + "/blobs/uploads/00000000-0000-4000-8000-000000000000"
	nothing := digest.FromString("nothing").String()
	for _, c := range []struct {
		code, method, path string
		body               []byte
	}{
		{"BLOB_UNKNOWN", "GET", "/v2/" + r + "/blobs/" + nothing, nil},
		{"BLOB_UPLOAD_UNKNOWN", "GET", gone, nil},
		{"DIGEST_INVALID", "GET", "/v2/" + r + "/blobs/sha256:abc", nil},
		{"DIGEST_INVALID", "PUT", manifestPath(r, nothing), body},
		{"MANIFEST_INVALID", "PUT", manifestPath(r, "bad"), []byte("{")},
		{"MANIFEST_UNKNOWN", "GET", manifestPath(r, "none"), nil},
		{"NAME_UNKNOWN", "GET", "/v2/" + r + "/nobody/tags/list", nil},
		{"UNSUPPORTED", "PATCH", manifestPath(r, "t"), body},
	} {
		a, err := p.do(c.method, c.path, c.body, "Content-Type", ociManifest)
		if err != nil {
			return err
		}
		if a.status < 400 || a.status > 499 {
			return a.errorf("answered %d", a.status)
		}
		if err := a.code(c.code); err != nil {
			return err
		}
	}
	a, err := p.want(400, "GET", "/v2/"+p.prefix+"/UPPER/tags/list", nil)
	return first(err, a.code("NAME_INVALID"))
}
