package webui

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
)

// What the API answers, as far as pages show it.
type (
	session struct {
		User          string
		SignIn, Stars bool
	}
	repository struct {
		Name, Description string
		Stars             int
		Starred           bool
		Pulls             int64
		Updated           time.Time
	}
	found struct {
		Query              string
		Total, Page, Pages int
		Repositories       []repository
	}
	push struct {
		Tag, Digest, User string
		Time              time.Time
	}
	details struct {
		repository
		Pushes []push
	}
	tagInfo struct {
		push
		MediaType string
		Platforms []string
		Size      int64
	}
	tagList struct {
		Tags []tagInfo
		Last string
	}
	layer struct {
		Digest, MediaType, Title string
		Size                     int64
	}
	step struct {
		Created            *time.Time
		CreatedBy, Comment string
		Size               int64
		Empty              bool
	}
	config struct {
		Author, User, WorkingDir             string
		Entrypoint, Cmd, Env, Ports, Volumes []string
		Labels                               map[string]string
	}
	platform struct {
		Platform, Digest     string
		Size                 int64
		Attestation, Missing bool
		Created              *time.Time
		Layers               []layer
		History              []step
		Config               *config
	}
	referrer struct {
		Digest, ArtifactType string
		Size                 int64
		Pushed               time.Time
	}
	image struct {
		Reference, Digest, MediaType, ArtifactType, By string
		Pushed                                         time.Time
		Annotations                                    map[string]string
		Platforms                                      []platform
		More                                           int
		Referrers                                      []referrer
	}
)

// Artifact tells whether it is something else than an image: the registry gives
// an image without an artifact type that of its configuration.
func (i image) Artifact() bool {
	return i.ArtifactType != "" && !strings.HasSuffix(i.ArtifactType, "image.config.v1+json") && !strings.HasSuffix(i.ArtifactType, "container.image.v1+json")
}

type apiError struct {
	status  int
	message string
}

func (e *apiError) Error() string { return e.message }

func asAPIError(err error) *apiError {
	var e *apiError
	if errors.As(err, &e) {
		return e
	}
	return &apiError{http.StatusInternalServerError, "the registry failed"}
}

// answer is what the API writes to.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (ui *UI) get(r *http.Request, path string, into any) error {
	_, err := ui.ask(r, http.MethodGet, path, nil, into)
	return err
}

// ask makes a request of the API in the visitor's name: with his cookies and
// credentials, and nothing else of what he sent.
func (ui *UI) ask(r *http.Request, method, path string, body []byte, into any) (http.Header, error) {
	req, err := http.NewRequestWithContext(r.Context(), method, path, bytes.NewReader(body))
	if err != nil {
		return nil, &apiError{http.StatusBadRequest, "there is nothing at this address"}
	}
	for _, key := range []string{"Authorization", "Cookie", "Sec-Fetch-Mode"} {
		req.Header[key] = r.Header[key]
	}
	req.Host, req.RemoteAddr, req.TLS, req.URL.Scheme = r.Host, r.RemoteAddr, r.TLS, r.URL.Scheme
	a := &answer{header: http.Header{}}
	ui.api.ServeHTTP(a, req)
	if a.status >= 400 {
		var problem struct{ Message string }
		if json.Unmarshal(a.body.Bytes(), &problem) != nil || problem.Message == "" {
			problem.Message = http.StatusText(a.status)
		}
		return a.header, &apiError{a.status, problem.Message}
	}
	data, err := io.ReadAll(&a.body)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		ui.log.Error("the API answered what cannot be read", "path", path, "error", err)
		return a.header, err
	}
	return a.header, nil
}
