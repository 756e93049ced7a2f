package client

import (
	"encoding/json"
	"io"
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
	Header      Header
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

func (c *Client) request(r *Request) (*message, error) {
	var body []byte
	if r.JSON != nil {
		var err error
		if body, err = encode(r.JSON); err != nil {
			return nil, err
		}
	}
	path := r.Path
	if !r.Unversioned {
		path = "/v" + c.APIVersion() + path
	}
	header := Header{}
	for k, v := range c.opts.Headers {
		header.Set(k, v)
	}
	for k, v := range r.Header {
		header[k] = v
	}
	header.Set("User-Agent", c.opts.Agent)
	if r.Upgrade != "" {
		header.Set("Connection", "Upgrade")
		header.Set("Upgrade", r.Upgrade)
	}
	switch {
	case r.JSON != nil:
		header.Set("Content-Type", "application/json")
	case r.Stream != nil:
		header.Set("Content-Type", r.ContentType)
	case r.Method == MethodPost:
		header.Set("Content-Type", "text/plain")
	}
	// Paths hold container names and file names: they are escaped here, once.
	target := (&url.URL{Path: path, RawQuery: r.Query.Encode()}).RequestURI()
	return newMessage(r.Method, path, target, c.hostHeader(), header, body, r.Stream), nil
}

func encode(v any) ([]byte, error) {
	if s, ok := v.(Sparse); ok {
		return s.MarshalJSON() // as json.Marshal would only check and copy
	}
	return json.Marshal(v)
}

func (c *Client) hostHeader() string {
	if c.network == "unix" {
		return "api.gantry.localhost"
	}
	return c.address
}
