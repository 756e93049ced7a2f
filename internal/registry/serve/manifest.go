package serve

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/registry/depot"
)

// getManifest sends a manifest or tells of it ("Pulling manifests", "Checking
// if content exists in the registry"). The Accept header is not asked: a
// manifest has one form, and to convert it would change its digest.
func (s *Server) getManifest(rq *request) error {
	if err := s.refresh(rq); err != nil {
		return err
	}
	var m depot.Manifest
	var body []byte
	var err error
	if rq.Method == http.MethodHead {
		m, err = s.depot.StatManifest(rq.Context(), rq.repository, rq.reference)
	} else {
		m, body, err = s.depot.Manifest(rq.Context(), rq.repository, rq.reference)
	}
	if err != nil {
		return s.unknownManifest(rq, err)
	}
	h := rq.w.Header()
	contentHeaders(h, m.Digest, m.MediaType)
	if noneMatch(rq.Header.Get("If-None-Match"), h.Get("Etag")) {
		h.Del("Content-Type")
		rq.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Length", itoa(m.Size))
	rq.w.WriteHeader(http.StatusOK)
	if rq.Method == http.MethodHead {
		return nil
	}
	if _, err := rq.w.Write(body); err != nil {
		return nil // the client went away
	}
	s.notify(rq, Event{Action: EventPull, Tag: rq.tag(), Descriptor: descriptor(m)})
	return nil
}

// noneMatch tells whether the entity is one of those a client has (RFC 9110,
// section 13.1.2).
func noneMatch(condition, etag string) bool {
	if condition == "" {
		return false
	}
	for one := range strings.SplitSeq(condition, ",") {
		one = strings.TrimPrefix(strings.TrimSpace(one), "W/")
		if one == "*" || one == etag || `"`+one+`"` == etag {
			return true
		}
	}
	return false
}

func (rq *request) tag() string {
	if rq.digest != "" {
		return ""
	}
	return rq.reference
}

func descriptor(m depot.Manifest) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: m.MediaType, Digest: m.Digest, Size: m.Size,
		ArtifactType: m.ArtifactType, Annotations: m.Annotations,
	}
}

// refresh lets the upstream bring the manifest. What is here is better than
// nothing: it is served with a warning when the upstream fails.
func (s *Server) refresh(rq *request) error {
	if s.o.Upstream == nil {
		return nil
	}
	_, here := s.depot.StatManifest(rq.Context(), rq.repository, rq.reference)
	if here != nil && !errors.Is(here, errdefs.ErrNotFound) || here == nil && rq.digest != "" {
		return here
	}
	err := s.o.Upstream.Manifest(rq.Context(), rq.repository, rq.reference)
	switch {
	case err == nil, errors.Is(err, errdefs.ErrNotFound):
		return nil // what is here decides
	case here != nil:
		return err
	}
	rq.warn(err.Error())
	return nil
}

// warn adds a Warning header of the specification's form ("Warnings").
func (rq *request) warn(text string) {
	const most = 1024
	clean := strings.Map(func(r rune) rune {
		switch {
		case r == '"' || r == '\\':
			return '\''
		case r < ' ' || r > '~':
			return ' '
		}
		return r
	}, text)
	if len(clean) > most {
		clean = clean[:most]
	}
	rq.w.Header().Add("Warning", `299 - "`+clean+`"`)
}

// unknownManifest is the answer to who asks for a manifest that is not there.
func (s *Server) unknownManifest(rq *request, err error) error {
	if !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	if exists, eerr := s.depot.Exists(rq.Context(), rq.repository); eerr == nil && !exists {
		return refuse(http.StatusNotFound, codeNameUnknown, "this registry has no repository %s", rq.repository)
	}
	return refuse(http.StatusNotFound, codeManifestUnknown, "%w", err)
}

// putManifest stores a manifest ("Pushing Manifests").
func (s *Server) putManifest(rq *request) error {
	body, err := s.manifestBody(rq)
	if err != nil {
		return err
	}
	algorithm := digest.Canonical
	if rq.digest != "" {
		algorithm = rq.digest.Algorithm()
	}
	got := algorithm.FromBytes(body)
	if rq.digest != "" && got != rq.digest {
		return &depot.Mismatch{Want: rq.digest, Got: got, WantSize: -1, GotSize: int64(len(body))}
	}
	m, err := parseManifest(rq.Header.Get("Content-Type"), body)
	if err != nil {
		return refuse(http.StatusBadRequest, codeManifestInvalid, "%w", err)
	}
	m.Digest, m.Pushed, m.By = got, time.Now().UTC(), rq.user
	tags, err := rq.tags()
	if err != nil {
		return err
	}
	if err := s.checkMatch(rq); err != nil {
		return err
	}
	err = s.writes.PutManifest(rq.Context(), rq.repository, m, body, depot.PutOptions{Tags: tags, Sparse: s.o.Sparse})
	if err != nil {
		return err
	}
	h := rq.w.Header()
	h.Set("Location", "/v2/"+rq.repository+"/manifests/"+got.String())
	h.Set("Docker-Content-Digest", got.String())
	if m.Subject != "" {
		h.Set("OCI-Subject", m.Subject.String())
	}
	if rq.digest != "" {
		for _, tag := range tags {
			h.Add("OCI-Tag", tag)
		}
	}
	rq.w.WriteHeader(http.StatusCreated)
	if len(tags) == 0 {
		s.notify(rq, Event{Action: EventPush, Descriptor: descriptor(m)})
	}
	for _, tag := range tags {
		s.notify(rq, Event{Action: EventPush, Tag: tag, Descriptor: descriptor(m)})
	}
	return nil
}

// manifestBody reads a manifest, whose size is limited because it is held in
// memory whole.
func (s *Server) manifestBody(rq *request) ([]byte, error) {
	limit := s.o.Limits.Manifest
	tooLarge := refuse(http.StatusRequestEntityTooLarge, codeSizeInvalid, "a manifest may have at most %d bytes", limit)
	if rq.ContentLength > limit {
		rq.w.Header().Set("Connection", "close") // nobody reads the rest
		return nil, tooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(rq.w, rq.Body, limit))
	var over *http.MaxBytesError
	if errors.As(err, &over) {
		return nil, tooLarge
	}
	if err != nil {
		return nil, refuse(http.StatusBadRequest, codeSizeInvalid, "the manifest did not arrive whole: %w", err)
	}
	_ = http.NewResponseController(rq.w).SetReadDeadline(time.Time{}) // storing it may take longer
	return body, nil
}

// maxTags bounds how many tags one push by digest may set.
const maxTags = 100

// tags are those that a push sets: the reference, or the tag parameters of a
// push by digest.
func (rq *request) tags() ([]string, error) {
	if rq.digest == "" {
		return []string{rq.reference}, nil
	}
	tags := rq.query["tag"]
	if len(tags) > maxTags {
		return nil, refuse(http.StatusRequestURITooLong, codeUnsupported, "at most %d tags can be set at once", maxTags)
	}
	for _, tag := range tags {
		if err := depot.CheckTag(tag); err != nil {
			return nil, refuse(http.StatusBadRequest, codeManifestInvalid, "%w", err)
		}
	}
	return tags, nil
}

// checkMatch honours If-Match and If-None-Match of a push, with which clients
// avoid overwriting a tag somebody else has moved meanwhile ("Referrers Tag
// Schema"). Two pushes at the same instant may both pass.
func (s *Server) checkMatch(rq *request) error {
	match, none := rq.Header.Get("If-Match"), rq.Header.Get("If-None-Match")
	if match == "" && none == "" {
		return nil
	}
	etag := ""
	m, err := s.depot.StatManifest(rq.Context(), rq.repository, rq.reference)
	switch {
	case err == nil:
		etag = `"` + m.Digest.String() + `"`
	case !errors.Is(err, errdefs.ErrNotFound):
		return err
	}
	if match != "" && (etag == "" || !noneMatch(match, etag)) || none != "" && etag != "" && noneMatch(none, etag) {
		return refuse(http.StatusPreconditionFailed, codeDenied, "%s of repository %s is not what the request expects", rq.reference, rq.repository)
	}
	return nil
}

// deleteManifest deletes a tag, or a manifest with all its tags ("Deleting
// tags", "Deleting Manifests").
func (s *Server) deleteManifest(rq *request) error {
	event := Event{Action: EventDelete, Tag: rq.tag()}
	m, err := s.depot.StatManifest(rq.Context(), rq.repository, rq.reference)
	if err == nil {
		event.Descriptor = descriptor(m)
		if rq.digest != "" {
			err = s.writes.DeleteManifest(rq.Context(), rq.repository, rq.digest)
		} else {
			err = s.writes.DeleteTag(rq.Context(), rq.repository, rq.reference)
		}
	}
	if err != nil {
		return s.unknownManifest(rq, err)
	}
	rq.w.WriteHeader(http.StatusAccepted)
	s.notify(rq, event)
	return nil
}
