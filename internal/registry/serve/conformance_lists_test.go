package serve

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// tags asks for a list and returns it with the path of the next page.
func (p *peer) tags(repository, query string) (tags []string, next string, err error) {
	path := query
	if !strings.HasPrefix(query, "/") {
		path = "/v2/" + repository + "/tags/list" + query
	}
	a, err := p.want(200, "GET", path, nil)
	if err != nil {
		return nil, "", err
	}
	var d struct {
		Name *string
		Tags *[]string
	}
	if err := json.Unmarshal(a.body, &d); err != nil || d.Name == nil || *d.Name != repository || d.Tags == nil {
		return nil, "", a.errorf("sent %s", a.body)
	}
	next, err = a.next()
	return *d.Tags, next, err
}

// next reads the Link header.
func (a *answer) next() (string, error) {
	link := a.header.Get("Link")
	if link == "" {
		return "", nil
	}
	target, rest, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	if !ok || !strings.Contains(rest, `rel="next"`) {
		return "", a.errorf("Link is %q", link)
	}
	return target, nil
}

var sorted = []string{"1", "10", "2", "A", "Z", "a", "latest", "z"}

func (p *peer) manyTags() (string, error) {
	r := p.repository()
	tags := slices.Clone(sorted)
	slices.Reverse(tags)
	_, err := p.tagged(r, tags...)
	return r, err
}

func tagsList(p *peer) error {
	r, err := p.manyTags()
	if err != nil {
		return err
	}
	tags, next, err := p.tags(r, "")
	if err == nil && (next != "" || !slices.Equal(tags, sorted)) {
		err = fmt.Errorf("listed %q, and on to %q", tags, next)
	}
	return err
}

func tagsPages(p *peer) error {
	r, err := p.manyTags()
	if err != nil {
		return err
	}
	for _, n := range []int{1, 3, 8, 100} {
		var all []string
		for page := fmt.Sprintf("?n=%d", n); page != ""; {
			tags, next, err := p.tags(r, page)
			if err != nil {
				return err
			}
			if len(tags) > n || next == "" && len(tags) < n && len(all)+len(tags) < len(sorted) {
				return fmt.Errorf("%s has %d tags", page, len(tags))
			}
			all, page = append(all, tags...), next
		}
		if !slices.Equal(all, sorted) {
			return fmt.Errorf("in pages of %d: %q", n, all)
		}
	}
	return nil
}

func tagsZero(p *peer) error {
	r, err := p.manyTags()
	if err != nil {
		return err
	}
	tags, next, err := p.tags(r, "?n=0")
	if err == nil && (len(tags) != 0 || next != "") {
		err = fmt.Errorf("n=0 lists %q, and on to %q", tags, next)
	}
	return err
}

func tagsLast(p *peer) error {
	r, err := p.manyTags()
	if err != nil {
		return err
	}
	for query, want := range map[string][]string{
		"?last=A":          sorted[4:],
		"?n=2&last=A":      sorted[4:6],
		"?n=100&last=z":    {},
		"?n=3&last=absent": sorted[6:],
	} {
		tags, _, err := p.tags(r, query)
		if err != nil {
			return err
		}
		if !slices.Equal(tags, want) {
			return fmt.Errorf("%s lists %q, not %q", query, tags, want)
		}
	}
	return nil
}

// referrers asks for the list.
func (p *peer) referrers(path string) (list []ocispec.Descriptor, a *answer, err error) {
	if a, err = p.want(200, "GET", path, nil); err != nil {
		return nil, a, err
	}
	if err := a.has("Content-Type", ociIndex); err != nil {
		return nil, a, err
	}
	var index struct {
		SchemaVersion int
		MediaType     string
		Manifests     *[]ocispec.Descriptor
	}
	if err := json.Unmarshal(a.body, &index); err != nil || index.SchemaVersion != 2 || index.MediaType != ociIndex || index.Manifests == nil {
		return nil, a, a.errorf("sent %s", a.body)
	}
	return *index.Manifests, a, nil
}

func referrersPath(repository string, dgst digest.Digest) string {
	return "/v2/" + repository + "/referrers/" + dgst.String()
}

func referrersEmpty(p *peer) error {
	r := p.repository()
	body, err := p.tagged(r, "t")
	if err != nil {
		return err
	}
	for _, path := range []string{
		referrersPath(r, digest.FromBytes(body)), referrersPath(r, digest.FromString("nothing")),
		referrersPath(r+"/nobody", digest.FromString("nothing")), referrersPath(r, digest.SHA512.FromString("nothing")),
	} {
		list, a, err := p.referrers(path)
		if err != nil {
			return err
		}
		if len(list) != 0 {
			return a.errorf("lists %v", list)
		}
	}
	return nil
}

func referrersBad(p *peer) error {
	r := p.repository()
	if _, err := p.tagged(r, "t"); err != nil {
		return err
	}
	for _, bad := range []digest.Digest{"t", "sha256:abc", "sha256:" + digest.Digest(strings.Repeat("g", 64)), "sha256"} {
		if _, err := p.want(400, "GET", referrersPath(r, bad), nil); err != nil {
			return err
		}
	}
	return nil
}

// refer pushes n images that refer to a subject, and an index that does, and
// returns the descriptors that must be listed.
func (p *peer) refer(r string, subject digest.Digest, n int) ([]ocispec.Descriptor, error) {
	var want []ocispec.Descriptor
	push := func(body []byte, mediaType, artifactType string, annotations map[string]string) error {
		d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body)), ArtifactType: artifactType, Annotations: annotations}
		want = append(want, d)
		_, err := p.want(201, "PUT", manifestPath(r, d.Digest.String()), body, "Content-Type", mediaType)
		return err
	}
	to := &ocispec.Descriptor{MediaType: ociManifest, Digest: subject, Size: 7}
	for i := range n {
		annotations := map[string]string{"i": fmt.Sprint(i)}
		artifactType := []string{"application/vnd.example.sbom.v1", ""}[i%2]
		body, err := p.image(r, func(m *ocispec.Manifest) {
			m.Subject, m.ArtifactType, m.Annotations = to, artifactType, annotations
		})
		if err != nil {
			return nil, err
		}
		if artifactType == "" {
			artifactType = ocispec.MediaTypeImageConfig
		}
		if err := push(body, ociManifest, artifactType, annotations); err != nil {
			return nil, err
		}
	}
	for _, artifactType := range []string{"", "application/vnd.example.index"} {
		index := ocispec.Index{MediaType: ociIndex, Manifests: []ocispec.Descriptor{}, Subject: to, ArtifactType: artifactType, Annotations: map[string]string{"of": "index"}}
		index.SchemaVersion = 2
		body, err := json.Marshal(index)
		if err != nil {
			return nil, err
		}
		if err := push(body, ociIndex, artifactType, index.Annotations); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(want, func(a, b ocispec.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return want, nil
}

func sameReferrers(a *answer, got, want []ocispec.Descriptor) error {
	got = slices.Clone(got)
	slices.SortFunc(got, func(a, b ocispec.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	if !reflect.DeepEqual(got, want) {
		return a.errorf("lists\n%+v\nnot\n%+v", got, want)
	}
	return nil
}

func referrersList(p *peer) error {
	r := p.repository()
	subject := digest.FromString("subject")
	want, err := p.refer(r, subject, 4)
	if err != nil {
		return err
	}
	got, a, err := p.referrers(referrersPath(r, subject))
	if err != nil {
		return err
	}
	if err := sameReferrers(a, got, want); err != nil {
		return err
	}
	if strings.Contains(string(a.body), `"artifactType":""`) {
		return a.errorf("an empty artifactType is not left out")
	}
	// One that is deleted is no longer listed.
	if _, err := p.want(202, "DELETE", manifestPath(r, want[0].Digest.String()), nil); err != nil {
		return err
	}
	if got, a, err = p.referrers(referrersPath(r, subject)); err != nil {
		return err
	}
	return sameReferrers(a, got, want[1:])
}

func referrersPages(p *peer) error {
	r := p.repository()
	subject := digest.FromString("subject")
	want, err := p.refer(r, subject, 5)
	if err != nil {
		return err
	}
	var all []ocispec.Descriptor
	var a *answer
	pages := 0
	for path := referrersPath(r, subject) + "?n=2"; path != ""; pages++ {
		var got []ocispec.Descriptor
		if got, a, err = p.referrers(path); err != nil {
			return err
		}
		all = append(all, got...)
		if path, err = a.next(); err != nil {
			return err
		}
	}
	if pages < 4 {
		return fmt.Errorf("%d pages", pages)
	}
	return sameReferrers(a, all, want)
}

func referrersFilter(p *peer) error {
	r := p.repository()
	subject := digest.FromString("subject")
	want, err := p.refer(r, subject, 6)
	if err != nil {
		return err
	}
	const wanted = "application/vnd.example.sbom.v1"
	want = slices.DeleteFunc(want, func(d ocispec.Descriptor) bool { return d.ArtifactType != wanted })
	for _, query := range []string{"?artifactType=" + wanted, "?n=1&artifactType=" + wanted} {
		var all []ocispec.Descriptor
		var a *answer
		for path := referrersPath(r, subject) + query; path != ""; {
			var got []ocispec.Descriptor
			if got, a, err = p.referrers(path); err != nil {
				return err
			}
			if err := a.has("OCI-Filters-Applied", "artifactType"); err != nil {
				return err
			}
			all = append(all, got...)
			if path, err = a.next(); err != nil {
				return err
			}
		}
		if err := sameReferrers(a, all, want); err != nil {
			return err
		}
	}
	list, a, err := p.referrers(referrersPath(r, subject) + "?artifactType=application/nothing")
	if err == nil && len(list) != 0 {
		err = a.errorf("lists %v", list)
	}
	return err
}

// referrersAll pushes the same manifest by tag and by digest, before and after
// its subject.
func referrersAll(p *peer) error {
	r := p.repository()
	subject, err := p.image(r)
	if err != nil {
		return err
	}
	to := &ocispec.Descriptor{MediaType: ociManifest, Digest: digest.FromBytes(subject), Size: int64(len(subject))}
	var want []string
	for i, reference := range []string{"before", "", "after"} {
		body, err := p.image(r, func(m *ocispec.Manifest) { m.Subject, m.Annotations = to, map[string]string{"i": fmt.Sprint(i)} })
		if err != nil {
			return err
		}
		dgst := digest.FromBytes(body).String()
		want = append(want, dgst)
		if reference == "" {
			reference = dgst
		}
		if err := p.put(r, reference, body); err != nil {
			return err
		}
		if i == 1 {
			if err := p.put(r, "subject", subject); err != nil {
				return err
			}
		}
	}
	list, a, err := p.referrers(referrersPath(r, to.Digest))
	if err != nil {
		return err
	}
	var got []string
	for _, d := range list {
		got = append(got, d.Digest.String())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return a.errorf("lists %v, not %v", got, want)
	}
	return nil
}

func deleteTag(p *peer) error {
	r := p.repository()
	body, err := p.tagged(r, "t", "u")
	if err != nil {
		return err
	}
	if _, err := p.want(202, "DELETE", manifestPath(r, "t"), nil); err != nil {
		return err
	}
	if _, err := p.want(404, "GET", manifestPath(r, "t"), nil, "Accept", acceptAll); err != nil {
		return err
	}
	for _, reference := range []string{"u", digest.FromBytes(body).String()} {
		if _, err := p.want(200, "GET", manifestPath(r, reference), nil, "Accept", acceptAll); err != nil {
			return err
		}
	}
	_, err = p.want(404, "DELETE", manifestPath(r, "t"), nil)
	return err
}

func deleteManifest(p *peer) error {
	r := p.repository()
	body, err := p.tagged(r, "t", "u")
	if err != nil {
		return err
	}
	dgst := digest.FromBytes(body).String()
	if _, err := p.want(404, "DELETE", manifestPath(r+"/nobody", dgst), nil); err != nil {
		return err
	}
	if _, err := p.want(202, "DELETE", manifestPath(r, dgst), nil); err != nil {
		return err
	}
	for _, reference := range []string{dgst, "t", "u"} {
		if _, err := p.want(404, "GET", manifestPath(r, reference), nil, "Accept", acceptAll); err != nil {
			return err
		}
	}
	_, err = p.want(404, "DELETE", manifestPath(r, dgst), nil)
	return err
}

func deleteBlob(p *peer) error {
	r := p.repository()
	for _, data := range contents() {
		dgst, err := p.push(r, data)
		if err != nil {
			return err
		}
		if _, err := p.want(202, "DELETE", blobPath(r, dgst), nil); err != nil {
			return err
		}
		for _, method := range []string{"GET", "HEAD", "DELETE"} {
			if _, err := p.want(404, method, blobPath(r, dgst), nil); err != nil {
				return err
			}
		}
	}
	return nil
}
