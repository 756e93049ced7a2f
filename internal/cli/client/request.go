package client

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
)

// Request is one call of the API. Path starts with a slash and has no version.
type Request struct {
	Method string
	Path   string
	Query  url.Values
	// JSON is encoded as the body when it is not nil.
	JSON any
	// Stream is sent chunked as the body when it is not nil. Such a request is
	// never sent twice.
	Stream      io.Reader
	ContentType string // of Stream
	Header      http.Header
	// Upgrade is what the connection may become, in the words of HTTP. When the
	// engine agrees its answer is 101, and the answer's body a *Stream.
	Upgrade     string
	Unversioned bool
	// Meanwhile is called once, while the engine works on the answer: for what
	// has to be done anyway. It is not called when nothing could be sent, and
	// not for a Stream.
	Meanwhile func()
}

// meanwhile calls the function the first time only.
func (r *Request) meanwhile() {
	if f := r.Meanwhile; f != nil {
		r.Meanwhile = nil
		f()
	}
}

func (c *Client) request(ctx context.Context, r *Request) (*http.Request, error) {
	var body io.Reader
	if r.Stream != nil {
		body = r.Stream
	}
	if r.JSON != nil {
		b, err := json.Marshal(r.JSON)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	path := r.Path
	if !r.Unversioned {
		path = "/v" + c.APIVersion() + path
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, "http://host", body)
	if err != nil {
		return nil, err
	}
	// Paths hold container names and file names: they are escaped here, once.
	req.URL = &url.URL{Scheme: "http", Host: c.hostHeader(), Path: path, RawQuery: r.Query.Encode()}
	req.Host = req.URL.Host
	for k, v := range c.opts.Headers {
		req.Header.Set(k, v)
	}
	for k, v := range r.Header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", c.opts.Agent)
	if r.Upgrade != "" {
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", r.Upgrade)
	}
	switch {
	case r.JSON != nil:
		req.Header.Set("Content-Type", "application/json")
	case r.Stream != nil:
		req.ContentLength = -1
		req.Header.Set("Content-Type", r.ContentType)
	case r.Method == http.MethodPost:
		req.Header.Set("Content-Type", "text/plain")
	}
	return req, nil
}

func (c *Client) hostHeader() string {
	if c.network == "unix" {
		return "api.gantry.localhost"
	}
	return c.address
}
