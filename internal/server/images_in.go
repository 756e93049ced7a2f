package server

import (
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/image"
)

// progress sends the messages of a long operation, each a line. The answer
// begins with the first of them, so that an error before it has a status.
type progress struct {
	w    *response
	once onceStream
	mu   sync.Mutex // guards err
	err  error
}

// progressMessage is a message with the field that errors were in first.
type progressMessage struct {
	jsonstream.Message
	Error string `json:"error,omitempty"`
}

func newProgress(w *response) *progress {
	w.Header().Set("Content-Type", "application/json")
	return &progress{w: w}
}

func (p *progress) send(m jsonstream.Message) {
	answer := progressMessage{Message: m}
	if m.Error != nil {
		answer.Error = m.Error.Message
	}
	err := encodeJSON(p.once.begin(p.w), &answer)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
}

// end closes the answer, with the error as its last message when it is too
// late for a status.
func (p *progress) end(r *request, err error) error {
	if err != nil && p.once.cancel() {
		return err
	}
	defer p.once.close()
	if err == nil {
		p.once.begin(p.w)
		return nil
	}
	if r.Context().Err() == nil {
		p.send(jsonstream.Message{Error: &jsonstream.Error{Message: err.Error()}})
	}
	return nil
}

// createImage pulls an image, or imports one from an archive of its files.
func (s *Server) createImage(w *response, r *request) error {
	var platform *ocispec.Platform
	text := r.Form.Get("platform")
	all := text == "all" && r.Form.Get("fromImage") != "" // ours: Docker's has no word for it
	if text != "" && !all && !r.before(1_32) {
		var err error
		if platform, err = parsePlatform(text); err != nil {
			return err
		}
	}
	if r.Form.Get("fromImage") != "" {
		return s.pullImage(w, r, platform, all)
	}
	return s.importImage(w, r, platform)
}

func (s *Server) pullImage(w *response, r *request, platform *ocispec.Platform, all bool) error {
	ref, err := pullReference(r.Form.Get("fromImage"), r.Form.Get("tag"))
	if err != nil {
		return err
	}
	out := newProgress(w)
	return out.end(r, s.images.Pull(r.Context(), ref.String(), image.PullOptions{
		Platform:     platform,
		AllPlatforms: all,
		Auth:         registryAuth(r),
		AllTags:      reference.IsNameOnly(ref),
		Progress:     out.send,
	}))
}

// pullReference joins the name and what may be a tag or a digest. Without
// either all tags are meant.
func pullReference(name, tag string) (reference.Named, error) {
	ref, err := reference.ParseNormalizedNamed(strings.TrimSuffix(name, ":")) // as "pull -a" ends it
	if err != nil {
		return nil, errs.InvalidArgument("%w", err)
	}
	if tag != "" {
		if dgst, derr := digest.Parse(tag); derr == nil {
			ref, err = reference.WithDigest(reference.TrimNamed(ref), dgst)
		} else {
			ref, err = reference.WithTag(ref, tag)
		}
		if err != nil {
			return nil, errs.InvalidArgument("%w", err)
		}
	}
	if reference.FamiliarName(ref) == "scratch" {
		return nil, errs.Forbidden("'scratch' is a reserved name")
	}
	return ref, nil
}

// registryAuth reads the credentials of the header. Ones that cannot be read
// are as good as none: clients have always sent all sorts of things there.
func registryAuth(r *request) *registry.AuthConfig {
	auth, err := authconfig.Decode(r.Header.Get(registry.AuthHeader))
	if err != nil || *auth == (registry.AuthConfig{}) {
		return nil
	}
	return auth
}

func (s *Server) importImage(w *response, r *request, platform *ocispec.Platform) error {
	repo, tag, message := r.Form.Get("repo"), r.Form.Get("tag"), r.Form.Get("message")
	if err := checkRepoTag(repo, tag); err != nil {
		return err
	}
	source := r.Form.Get("fromSrc")
	if message == "" {
		message = "Imported from " + source
	}
	o := image.ImportOptions{Repo: repo, Tag: tag, Message: message, Changes: r.Form["changes"], Platform: platform}
	var id digest.Digest
	var err error
	if source == "-" {
		id, err = s.images.Import(r.Context(), r.Body, o)
	} else {
		id, err = s.images.ImportFrom(r.Context(), source, o)
	}
	out := newProgress(w)
	if err == nil {
		out.send(jsonstream.Message{Status: id.String()})
	}
	return out.end(r, err)
}

func (s *Server) loadImages(w *response, r *request) error {
	platforms, err := r.platforms("platform", 1_48)
	if err != nil {
		return err
	}
	if len(platforms) > 1 {
		return errs.InvalidArgument("multiple platform parameters not supported")
	}
	out := newProgress(w)
	return out.end(r, s.images.Load(r.Context(), r.Body, image.LoadOptions{
		Platforms: platforms,
		Quiet:     r.flagOr("quiet", true),
		Progress:  out.send,
	}))
}
