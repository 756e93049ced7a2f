package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// answer is an answer with its body.
type answer struct {
	request string
	status  int
	header  http.Header
	body    []byte
}

// do makes a request. headers are pairs.
func (p *peer) do(method, path string, body []byte, headers ...string) (*answer, error) {
	target := path
	if !strings.Contains(path, "://") {
		target = p.base + path
	}
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequest(method, target, r)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	a := &answer{request: method + " " + path, status: resp.StatusCode, header: resp.Header}
	a.body, err = io.ReadAll(resp.Body)
	return a, err
}

// want makes a request and holds its status.
func (p *peer) want(status int, method, path string, body []byte, headers ...string) (*answer, error) {
	a, err := p.do(method, path, body, headers...)
	if err == nil && a.status != status {
		err = a.errorf("answered %d, not %d: %.300s", a.status, status, a.body)
	}
	return a, err
}

func (a *answer) errorf(format string, args ...any) error {
	return errors.New(a.request + ": " + fmt.Sprintf(format, args...))
}

// has holds a header.
func (a *answer) has(name, value string) error {
	if got := a.header.Get(name); got != value {
		return a.errorf("header %s is %q, not %q", name, got, value)
	}
	return nil
}

// code holds the first error code of an error document.
func (a *answer) code(want string) error {
	var d struct {
		Errors []struct {
			Code    *string
			Message string
			Detail  any
		}
	}
	if err := json.Unmarshal(a.body, &d); err != nil || len(d.Errors) == 0 || d.Errors[0].Code == nil {
		return a.errorf("is no error document: %.200s", a.body)
	}
	if want != "" && *d.Errors[0].Code != want {
		return a.errorf("has code %s, not %s", *d.Errors[0].Code, want)
	}
	for _, e := range d.Errors {
		if !strings.Contains(allCodes, " "+*e.Code+" ") {
			return a.errorf("%s is no code of the table", *e.Code)
		}
	}
	return nil
}

const allCodes = " BLOB_UNKNOWN BLOB_UPLOAD_INVALID BLOB_UPLOAD_UNKNOWN DIGEST_INVALID MANIFEST_BLOB_UNKNOWN MANIFEST_INVALID MANIFEST_UNKNOWN NAME_INVALID NAME_UNKNOWN SIZE_INVALID UNAUTHORIZED DENIED UNSUPPORTED TOOMANYREQUESTS "

// location is the Location of an answer as something to ask, with a query.
func (a *answer) location(query ...string) (string, error) {
	u, err := url.Parse(a.header.Get("Location"))
	if err != nil || u.Path == "" {
		return "", a.errorf("has Location %q", a.header.Get("Location"))
	}
	q := u.Query()
	for i := 0; i < len(query); i += 2 {
		q.Set(query[i], query[i+1])
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// start begins an upload.
func (p *peer) start(repository string) (string, error) {
	a, err := p.want(202, "POST", "/v2/"+repository+"/blobs/uploads/", []byte{})
	if err != nil {
		return "", err
	}
	return a.location()
}

// finish closes an upload.
func (p *peer) finish(location string, dgst digest.Digest, body []byte, headers ...string) (*answer, error) {
	u, err := url.Parse(location)
	if err != nil {
		return nil, err
	}
	q := u.Query()
	q.Set("digest", dgst.String())
	u.RawQuery = q.Encode()
	return p.do("PUT", u.String(), body, append(headers, "Content-Type", octets)...)
}

// push uploads a blob.
func (p *peer) push(repository string, data []byte) (digest.Digest, error) {
	dgst := digest.FromBytes(data)
	location, err := p.start(repository)
	if err != nil {
		return "", err
	}
	a, err := p.finish(location, dgst, data)
	if err == nil && a.status != 201 {
		err = a.errorf("answered %d: %.300s", a.status, a.body)
	}
	return dgst, err
}

const (
	ociManifest = ocispec.MediaTypeImageManifest
	ociIndex    = ocispec.MediaTypeImageIndex
)

// image pushes the parts of an image and returns its manifest.
func (p *peer) image(repository string, change ...func(*ocispec.Manifest)) ([]byte, error) {
	config, layer := []byte(`{"architecture":"amd64","os":"linux"}`), []byte("a layer of "+repository)
	for _, data := range [][]byte{config, layer} {
		if _, err := p.push(repository, data); err != nil {
			return nil, err
		}
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ociManifest,
		Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))},
		Layers:    []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(layer), Size: int64(len(layer))}},
	}
	for _, c := range change {
		c(&m)
	}
	return json.Marshal(m)
}

// tagged pushes an image under tags and returns its manifest.
func (p *peer) tagged(repository string, tags ...string) ([]byte, error) {
	body, err := p.image(repository)
	for _, tag := range tags {
		if err == nil {
			err = p.put(repository, tag, body)
		}
	}
	return body, err
}

// put pushes a manifest.
func (p *peer) put(repository, reference string, body []byte) error {
	_, err := p.want(201, "PUT", manifestPath(repository, reference), body, "Content-Type", ociManifest)
	return err
}

func manifestPath(repository, reference string) string {
	return "/v2/" + repository + "/manifests/" + reference
}

func blobPath(repository string, dgst digest.Digest) string {
	return "/v2/" + repository + "/blobs/" + dgst.String()
}

const acceptAll = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"

// first returns the first error.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
