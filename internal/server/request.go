package server

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/filter"
)

const (
	maxJSONBody = 16 << 20 // far beyond any container, far below what hurts
	maxFormBody = 1 << 20
)

// request is one call of the API. Parameters of the query, and of the body for
// routes that take no other, are in Form.
type request struct {
	*http.Request
	api  apiVersion // the version the client speaks
	name string     // what {name} of the route stands for
}

// parse reads the parameters and bounds the body by what the route expects.
func (r *request) parse(w http.ResponseWriter, b body) error {
	switch b {
	case bodyNone:
		if r.Method == http.MethodPost {
			r.Body = http.MaxBytesReader(w, r.Body, maxFormBody)
		}
	case bodyJSON:
		r.Body = http.MaxBytesReader(w, r.Body, maxJSONBody)
	}
	if b != bodyNone {
		// Reading a form would take the body away from the handler.
		body := r.Body
		r.Body = http.NoBody
		defer func() { r.Body = body }()
	}
	if err := r.ParseForm(); err != nil && !strings.HasPrefix(err.Error(), "mime:") && !errors.Is(err, http.ErrNotMultipart) {
		return errs.InvalidArgument("%w", err)
	}
	return nil
}

// flag is a boolean parameter: anything but nothing, 0, no, false and none is true.
func (r *request) flag(key string) bool {
	switch strings.ToLower(strings.TrimSpace(r.Form.Get(key))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// flagOr is flag with a value for when the parameter is absent.
func (r *request) flagOr(key string, def bool) bool {
	if !r.Form.Has(key) {
		return def
	}
	return r.flag(key)
}

// integer is a whole number; nil when the parameter is absent or empty.
func (r *request) integer(key string) (*int, error) {
	s := r.Form.Get(key)
	if s == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return nil, errs.InvalidArgument("invalid value for %q: %q is not a whole number", key, s)
	}
	return &n, nil
}

// size is the width or height of a terminal.
func (r *request) size(key, noun string) (uint, error) {
	s := r.Form.Get(key)
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		cause := strconv.ErrSyntax
		if isNumber(strings.TrimPrefix(s, "-")) {
			cause = strconv.ErrRange
		}
		return 0, errs.InvalidArgument("invalid resize %s %q: %w", noun, s, cause)
	}
	return uint(n), nil
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// filters decodes the parameter of that name.
func (r *request) filters() (filter.Args, error) {
	args, err := filter.Parse(r.Form.Get("filters"))
	if args == nil && err == nil {
		args = filter.Args{}
	}
	return args, err
}

// platform decodes the JSON form of a platform, which a parameter may hold
// since the version given; nil when it does not.
func (r *request) platform(since apiVersion) (*ocispec.Platform, error) {
	list, err := r.platforms("platform", since)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	if len(list) > 1 {
		return nil, errs.InvalidArgument("multiple platform parameters not supported")
	}
	return &list[0], nil
}

func (r *request) platforms(key string, since apiVersion) ([]ocispec.Platform, error) {
	if r.before(since) {
		return nil, nil
	}
	var list []ocispec.Platform
	for _, s := range r.Form[key] {
		if s == "" {
			continue
		}
		var p ocispec.Platform
		if err := json.Unmarshal([]byte(s), &p); err != nil {
			return nil, errs.InvalidArgument("failed to parse platform: %w", err)
		}
		if p.OS == "" || p.Architecture == "" {
			if p.OS == "" && p.Architecture == "" && (p.Variant != "" || p.OSVersion != "" || len(p.OSFeatures) > 0) {
				return nil, errs.InvalidArgument("optional platform fields provided, but OS and Architecture are missing")
			}
			return nil, errs.InvalidArgument("both OS and Architecture must be provided")
		}
		list = append(list, p)
	}
	return list, nil
}

// checkJSON refuses a body that does not say it is JSON. None at all is fine.
func (r *request) checkJSON() error {
	ct := r.Header.Get("Content-Type")
	if ct == "" && (r.Body == nil || r.ContentLength == 0) {
		return nil
	}
	kind, _, err := mime.ParseMediaType(ct)
	if err != nil {
		return errs.InvalidArgument("malformed Content-Type header (%s): %w", ct, err)
	}
	if kind != "application/json" {
		return errs.InvalidArgument("unsupported Content-Type header (%s): must be 'application/json'", ct)
	}
	return nil
}

// json decodes the body into v, which stays as it is when there is no body.
func (r *request) json(v any) error {
	if err := r.checkJSON(); err != nil {
		return err
	}
	if r.Body == nil || r.ContentLength == 0 {
		return nil
	}
	return decodeJSON(r.Body, v)
}

// decodeJSON reads exactly one JSON document, to the end of the reader, so that
// nothing of it is left when the connection is taken over.
func decodeJSON(body io.Reader, v any) error {
	dec := json.NewDecoder(body)
	if err := dec.Decode(v); err != nil {
		return badJSON(err)
	}
	if dec.More() {
		return errs.InvalidArgument("unexpected content after JSON")
	}
	if _, err := io.Copy(io.Discard, body); err != nil {
		return badJSON(err)
	}
	return nil
}

func badJSON(err error) error {
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return err
	}
	if errors.Is(err, io.EOF) {
		return errs.InvalidArgument("invalid JSON: got EOF while reading request body")
	}
	return errs.InvalidArgument("invalid JSON: %w", err)
}
