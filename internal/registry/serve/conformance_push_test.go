package serve

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func subjectLater(p *peer) error {
	r := p.repository()
	subject := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[]}`, ociIndex))
	body, err := p.image(r, func(m *ocispec.Manifest) {
		m.Subject = &ocispec.Descriptor{MediaType: ociIndex, Digest: digest.FromBytes(subject), Size: int64(len(subject))}
	})
	if err != nil {
		return err
	}
	if err := p.put(r, digest.FromBytes(body).String(), body); err != nil {
		return err
	}
	_, err = p.want(201, "PUT", manifestPath(r, "later"), subject, "Content-Type", ociIndex)
	return err
}

func missingBlobs(p *peer) error {
	r := p.repository()
	absent := digest.FromString("absent")
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: absent, Size: 6}
	for name, change := range map[string]func(*ocispec.Manifest){
		"config": func(m *ocispec.Manifest) { m.Config = d },
		"layer":  func(m *ocispec.Manifest) { m.Layers = append(m.Layers, d) },
	} {
		body, err := p.image(r, change)
		if err != nil {
			return err
		}
		a, err := p.do("PUT", manifestPath(r, name), body, "Content-Type", ociManifest)
		if err != nil {
			return err
		}
		if a.status != 404 && a.status != 400 {
			return a.errorf("answered %d", a.status)
		}
		if err := a.code("MANIFEST_BLOB_UNKNOWN"); err != nil {
			return err
		}
		if !strings.Contains(string(a.body), absent.String()) {
			return a.errorf("does not say what is missing: %s", a.body)
		}
	}
	return nil
}

func badDigests(p *peer) error {
	r := p.repository()
	data := []byte("data")
	good := digest.FromBytes(data)
	for _, dgst := range []digest.Digest{"", "sha256:" + digest.Digest(good.Encoded()[:10]), "md5:8d777f385d3dfec8815d20f7496026dc", "sha256", digest.FromString("other")} {
		location, err := p.start(r)
		if err != nil {
			return err
		}
		a, err := p.finish(location, dgst, data)
		if err != nil {
			return err
		}
		if a.status != 400 {
			return a.errorf("answered %d", a.status)
		}
		if err := a.code("DIGEST_INVALID"); err != nil {
			return err
		}
	}
	_, err := p.want(404, "HEAD", blobPath(r, good), nil)
	return err
}

var uuid = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

func uploadLocation(p *peer) error {
	seen := map[string]bool{}
	for range 3 {
		location, err := p.start(p.repository())
		if err != nil {
			return err
		}
		id := uuid.FindString(location)
		if id == "" || seen[id] {
			return fmt.Errorf("the location %s has no UUID of its own", location)
		}
		seen[id] = true
	}
	return nil
}

// taken holds that a blob was taken in, and is what was sent.
func (p *peer) taken(a *answer, err error, data []byte) error {
	if err != nil {
		return err
	}
	if a.status != 201 {
		return a.errorf("answered %d: %s", a.status, a.body)
	}
	return p.pullable(a, data)
}

// pullable follows the Location of what was pushed.
func (p *peer) pullable(a *answer, data []byte) error {
	location, err := a.location()
	if err != nil {
		return err
	}
	got, err := p.want(200, "GET", location, nil, "Accept", acceptAll)
	if err == nil && !bytes.Equal(got.body, data) {
		err = got.errorf("sent %d other bytes", len(got.body))
	}
	return err
}

func postPut(p *peer) error {
	for _, data := range contents() {
		location, err := p.start(p.repository())
		if err != nil {
			return err
		}
		a, err := p.finish(location, digest.FromBytes(data), data)
		if err := p.taken(a, err, data); err != nil {
			return err
		}
	}
	return nil
}

func singlePost(p *peer) error {
	r := p.repository()
	for _, data := range contents() {
		a, err := p.do("POST", "/v2/"+r+"/blobs/uploads/?digest="+digest.FromBytes(data).String(), data, "Content-Type", octets)
		if err != nil {
			return err
		}
		if a.status != 201 { // 202 is allowed: then it is an upload
			return a.errorf("answered %d", a.status)
		}
		if err := p.pullable(a, data); err != nil {
			return err
		}
	}
	a, err := p.want(400, "POST", "/v2/"+r+"/blobs/uploads/?digest="+digest.FromString("other").String(), []byte("data"), "Content-Type", octets)
	return first(err, a.code("DIGEST_INVALID"))
}

func sha512Upload(p *peer) error {
	r := p.repository()
	data := bytes.Repeat([]byte("longer digest "), 10_000)
	a, err := p.want(202, "POST", "/v2/"+r+"/blobs/uploads/?digest-algorithm=sha512", []byte{})
	if err != nil {
		return err
	}
	location, err := a.location()
	if err != nil {
		return err
	}
	if a, err = p.want(202, "PATCH", location, data[:1000], "Content-Type", octets); err != nil {
		return err
	}
	if location, err = a.location(); err != nil {
		return err
	}
	dgst := digest.SHA512.FromBytes(data)
	a, err = p.finish(location, dgst, data[1000:])
	if err := p.taken(a, err, data); err != nil {
		return err
	}
	_, err = p.want(200, "HEAD", blobPath(r, dgst), nil)
	return err
}

// chunk sends one with its range.
func (p *peer) chunk(location string, data []byte, from, to int) (*answer, error) {
	return p.do("PATCH", location, data[from:to], "Content-Type", octets, "Content-Range", fmt.Sprintf("%d-%d", from, to-1))
}

func chunks(p *peer) error {
	data := bytes.Repeat([]byte("0123456789"), 30_000)
	location, err := p.start(p.repository())
	if err != nil {
		return err
	}
	borders := []int{0, 1, 20_000, 250_000, len(data)}
	for i := range len(borders) - 1 {
		a, err := p.chunk(location, data, borders[i], borders[i+1])
		if err != nil {
			return err
		}
		if a.status != 202 {
			return a.errorf("answered %d: %s", a.status, a.body)
		}
		if err := a.has("Range", fmt.Sprintf("0-%d", borders[i+1]-1)); err != nil {
			return err
		}
		if location, err = a.location(); err != nil {
			return err
		}
	}
	a, err := p.finish(location, digest.FromBytes(data), nil)
	if err != nil {
		return err
	}
	if a.status != 201 {
		return a.errorf("answered %d: %s", a.status, a.body)
	}
	return p.pullable(a, data)
}

func chunkOrder(p *peer) error {
	data := []byte("0123456789")
	location, err := p.start(p.repository())
	if err != nil {
		return err
	}
	// The first one begins with 0.
	if a, err := p.chunk(location, data, 3, 5); err != nil || a.status != 416 {
		return fmt.Errorf("a first chunk from 3 was answered %v, %v", a, err)
	}
	a, err := p.chunk(location, data, 0, 5)
	if err != nil || a.status != 202 {
		return fmt.Errorf("the first chunk was answered %v, %v", a, err)
	}
	if location, err = a.location(); err != nil {
		return err
	}
	for _, from := range []int{0, 4, 6} {
		a, err := p.chunk(location, data, from, from+3)
		if err != nil {
			return err
		}
		if a.status != 416 {
			return a.errorf("from %d answered %d", from, a.status)
		}
	}
	// Nothing of them was taken.
	if a, err = p.chunk(location, data, 5, 10); err != nil || a.status != 202 {
		return fmt.Errorf("the next chunk was answered %v, %v", a, err)
	}
	if location, err = a.location(); err != nil {
		return err
	}
	a, err = p.finish(location, digest.FromBytes(data), nil)
	if err == nil && a.status != 201 {
		err = a.errorf("answered %d: %s", a.status, a.body)
	}
	return err
}

func lastChunk(p *peer) error {
	data := []byte("0123456789")
	for _, withPut := range []bool{false, true} {
		location, err := p.start(p.repository())
		if err != nil {
			return err
		}
		end := len(data)
		var headers []string
		if withPut {
			end = 6
			headers = []string{"Content-Range", "6-9"}
		}
		a, err := p.chunk(location, data, 0, end)
		if err != nil {
			return err
		}
		if location, err = a.location(); err != nil {
			return err
		}
		a, err = p.finish(location, digest.FromBytes(data), data[end:], headers...)
		if err := p.taken(a, err, data); err != nil {
			return err
		}
	}
	return nil
}

func lastChunkOrder(p *peer) error {
	data := []byte("0123456789")
	location, err := p.start(p.repository())
	if err != nil {
		return err
	}
	a, err := p.chunk(location, data, 0, 5)
	if err != nil {
		return err
	}
	if location, err = a.location(); err != nil {
		return err
	}
	if a, err = p.finish(location, digest.FromBytes(data), data[6:], "Content-Range", "6-9"); err != nil {
		return err
	}
	if a.status != 416 {
		return a.errorf("answered %d", a.status)
	}
	if a, err = p.finish(location, digest.FromBytes(data), data[5:], "Content-Range", "5-9"); err != nil {
		return err
	}
	if a.status != 201 {
		return a.errorf("answered %d after the 416", a.status)
	}
	return nil
}

func uploadStatus(p *peer) error {
	data := []byte("0123456789")
	location, err := p.start(p.repository())
	if err != nil {
		return err
	}
	a, err := p.want(204, "GET", location, nil)
	if err != nil {
		return err
	}
	if location, err = a.location(); err != nil {
		return err
	}
	if a, err = p.chunk(location, data, 0, 7); err != nil {
		return err
	}
	if location, err = a.location(); err != nil {
		return err
	}
	a, err = p.want(204, "GET", location, nil)
	if err := first(err, a.has("Range", "0-6")); err != nil {
		return err
	}
	if location, err = a.location(); err != nil {
		return err
	}
	if a, err = p.chunk(location, data, 7, 10); err != nil || a.status != 202 {
		return fmt.Errorf("going on where it stands was answered %v, %v", a, err)
	}
	return nil
}

func cancelUpload(p *peer) error {
	location, err := p.start(p.repository())
	if err != nil {
		return err
	}
	if _, err := p.want(204, "DELETE", location, nil); err != nil {
		return err
	}
	a, err := p.want(404, "GET", location, nil)
	return first(err, a.code("BLOB_UPLOAD_UNKNOWN"))
}

func mountBlob(p *peer) error {
	from, to, third := p.repository(), p.repository(), p.repository()
	data := []byte("to be mounted")
	dgst, err := p.push(from, data)
	if err != nil {
		return err
	}
	a, err := p.want(201, "POST", "/v2/"+to+"/blobs/uploads/?mount="+dgst.String()+"&from="+from, []byte{})
	if err := first(err, a.has("Docker-Content-Digest", dgst.String())); err != nil {
		return err
	}
	if err := p.pullable(a, data); err != nil {
		return err
	}
	if _, err := p.want(200, "HEAD", blobPath(to, dgst), nil); err != nil {
		return err
	}
	// Without from either is right; what is said must be true.
	a, err = p.do("POST", "/v2/"+third+"/blobs/uploads/?mount="+dgst.String(), []byte{})
	if err != nil {
		return err
	}
	switch a.status {
	case 201:
		return p.pullable(a, data)
	case 202:
		return nil
	}
	return a.errorf("answered %d", a.status)
}

func mountNothing(p *peer) error {
	from, to := p.repository(), p.repository()
	if _, err := p.push(from, []byte("something")); err != nil {
		return err
	}
	data := []byte("nowhere yet " + to)
	for _, name := range []string{from, p.repository()} {
		a, err := p.want(202, "POST", "/v2/"+to+"/blobs/uploads/?mount="+digest.FromBytes(data).String()+"&from="+name, []byte{})
		if err != nil {
			return err
		}
		location, err := a.location()
		if err != nil {
			return err
		}
		if a, err = p.finish(location, digest.FromBytes(data), data); err != nil || a.status != 201 {
			return fmt.Errorf("the upload that a mount became was answered %v, %v", a, err)
		}
		data = append(data, '!')
	}
	return nil
}
