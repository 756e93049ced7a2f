package client

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
)

// HTTP/1.1 (RFC 9112) as a client of an engine needs it. net/http has all of it, and
// brings TLS, HTTP/2 and their tables along: they were a fifth of the start of every
// command, most of which speak to a Unix socket.

// Methods of HTTP.
const (
	MethodGet    = "GET"
	MethodHead   = "HEAD"
	MethodPost   = "POST"
	MethodPut    = "PUT"
	MethodDelete = "DELETE"
)

// Status codes of HTTP.
const (
	StatusSwitchingProtocols  = 101
	StatusOK                  = 200
	StatusNoContent           = 204
	StatusNotModified         = 304
	StatusBadRequest          = 400
	StatusUnauthorized        = 401
	StatusNotFound            = 404
	StatusConflict            = 409
	StatusInternalServerError = 500
)

// Header is the header of a request or an answer. Its keys are canonical, as
// textproto.CanonicalMIMEHeaderKey makes them.
type Header map[string][]string

// Get returns the first value of a name, or "".
func (h Header) Get(name string) string {
	if v := h[textproto.CanonicalMIMEHeaderKey(name)]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// Set replaces the values of a name.
func (h Header) Set(name, value string) {
	h[textproto.CanonicalMIMEHeaderKey(name)] = []string{value}
}

// lists says whether a header that is a list of words has one.
func (h Header) lists(name, word string) bool {
	for _, v := range h[name] {
		for w := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(w), word) {
				return true
			}
		}
	}
	return false
}

// Response is an answer. Its body is the caller's to close.
type Response struct {
	StatusCode int
	Status     string // with the reason: "404 Not Found"
	Header     Header
	Body       io.ReadCloser

	to    string // the request's method and path
	close bool   // the connection is not for another request
}

// message is a request as it is sent.
type message struct {
	method, path string
	head         []byte    // with the body of one whose length is known
	stream       io.Reader // is sent in chunks, or nil
}

// newMessage writes a request down. target is the path with its query.
func newMessage(method, path, target, host string, header Header, body []byte, stream io.Reader) *message {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, target, oneLine(host))
	for _, name := range slices.Sorted(maps.Keys(header)) {
		if !validName(name) || frames(name) {
			continue
		}
		for _, v := range header[name] {
			b.WriteString(name + ": " + strings.TrimSpace(oneLine(v)) + "\r\n")
		}
	}
	switch {
	case stream != nil:
		b.WriteString("Transfer-Encoding: chunked\r\n")
	case len(body) > 0 || method == MethodPost || method == MethodPut:
		b.WriteString("Content-Length: " + strconv.Itoa(len(body)) + "\r\n")
	}
	b.WriteString("\r\n")
	b.Write(body)
	return &message{method, path, b.Bytes(), stream}
}

// frames says whether a header tells where a request ends or whom it is for, which
// nobody configures.
func frames(name string) bool {
	return slices.Contains([]string{"Host", "Content-Length", "Transfer-Encoding", "Trailer"}, name)
}

// oneLine keeps what somebody has configured from being more than one header.
func oneLine(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r", " "), "\n", " ")
}

// validName says whether a name is a token, RFC 9110, section 5.6.2.
func validName(name string) bool {
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\"(),/:;<=>?@[\\]{}", c) >= 0 {
			return false
		}
	}
	return name != ""
}

// validValue says whether there are no control characters in a value but tabs.
func validValue(v string) bool {
	for _, c := range []byte(v) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// write sends the request.
func (m *message) write(w io.Writer) error {
	if _, err := w.Write(m.head); err != nil || m.stream == nil {
		return err
	}
	const room = 8 // for the length of a chunk
	buf := make([]byte, room+32<<10+2)
	for {
		n, err := m.stream.Read(buf[room : len(buf)-2])
		if n > 0 {
			size := fmt.Sprintf("%x\r\n", n)
			start := room - len(size)
			copy(buf[start:], size)
			copy(buf[room+n:], "\r\n")
			if _, err := w.Write(buf[start : room+n+2]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			_, err = io.WriteString(w, "0\r\n\r\n")
			return err
		}
		if err != nil {
			return err // without an end the engine does not take it for whole
		}
	}
}

// maxHead bounds the lines of an answer before its body, in bytes.
const maxHead = 1 << 20

var errMalformed = errors.New("that is not an answer of HTTP")

// readResponse reads an answer to m up to its body. Interim ones other than 101 are
// skipped.
func readResponse(r *bufio.Reader, m *message) (*Response, error) {
	for {
		resp, err := readHead(r)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode < 200 && resp.StatusCode != StatusSwitchingProtocols {
			continue
		}
		resp.to = m.method + " " + m.path
		resp.Body, err = resp.frame(r, m.method)
		return resp, err
	}
}

// readHead reads a status line and the header.
func readHead(r *bufio.Reader) (*Response, error) {
	left := maxHead
	first, err := readLine(r, &left)
	if err != nil {
		return nil, err
	}
	version, status, _ := strings.Cut(first, " ")
	minor, ok := strings.CutPrefix(version, "HTTP/1.")
	status = strings.TrimLeft(status, " ")
	code, _, _ := strings.Cut(status, " ")
	n, err := strconv.ParseUint(code, 10, 16)
	if !ok || minor != "0" && minor != "1" || len(code) != 3 || err != nil || n < 100 {
		return nil, errMalformed
	}
	resp := &Response{StatusCode: int(n), Status: status, Header: Header{}}
	for {
		line, err := readLine(r, &left)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
		if line == "" {
			break
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !validName(name) || !validValue(value) { // which a folded line is not either
			return nil, errMalformed
		}
		key := textproto.CanonicalMIMEHeaderKey(name)
		resp.Header[key] = append(resp.Header[key], strings.Trim(value, " \t"))
	}
	if minor == "0" && resp.Header["Transfer-Encoding"] != nil {
		return nil, errMalformed // which of the two is right?
	}
	resp.close = resp.Header.lists("Connection", "close") || minor == "0" && !resp.Header.lists("Connection", "keep-alive")
	return resp, nil
}

// readLine reads a line without its end, which may be a bare LF. It takes what it
// reads off left.
func readLine(r *bufio.Reader, left *int) (string, error) {
	line, err := rawLine(r, left)
	return strings.TrimSuffix(line, "\r"), err
}

// rawLine reads a line up to its LF.
func rawLine(r *bufio.Reader, left *int) (string, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if *left -= len(part); *left < 0 {
			return "", errMalformed
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return string(line[:len(line)-1]), nil
		case err == io.EOF && len(line) > 0:
			return "", io.ErrUnexpectedEOF
		case err != bufio.ErrBufferFull:
			return "", err
		}
	}
}

// frame finds out how long the body is, RFC 9112, section 6.3.
func (resp *Response) frame(r *bufio.Reader, method string) (io.ReadCloser, error) {
	coding, length := resp.Header["Transfer-Encoding"], resp.Header["Content-Length"]
	var n uint64
	for _, text := range length {
		var err error
		if n, err = strconv.ParseUint(text, 10, 63); err != nil || text != length[0] {
			return nil, fmt.Errorf("%w: length %q", errMalformed, strings.Join(length, ", "))
		}
	}
	inChunks := len(coding) == 1 && strings.EqualFold(coding[0], "chunked")
	if len(coding) > 0 && !inChunks {
		return nil, fmt.Errorf("%w: transfer coding %q", errMalformed, strings.Join(coding, ", "))
	}
	switch {
	case method == MethodHead || resp.StatusCode < 200 || resp.StatusCode == StatusNoContent || resp.StatusCode == StatusNotModified:
		return noBody{}, nil
	case inChunks:
		return io.NopCloser(&chunked{r: r}), nil
	case len(length) == 0:
		resp.close = true
		return io.NopCloser(r), nil
	case n == 0:
		return noBody{}, nil
	}
	return io.NopCloser(&counted{r, n}), nil
}

// noBody is the body of an answer that has none.
type noBody struct{}

func (noBody) Read([]byte) (int, error) { return 0, io.EOF }
func (noBody) Close() error             { return nil }

// counted is a body of left bytes.
type counted struct {
	r    *bufio.Reader
	left uint64
}

func (c *counted) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	n, err := c.r.Read(p[:min(uint64(len(p)), c.left)])
	switch c.left -= uint64(n); {
	case c.left == 0:
		err = io.EOF
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// chunked is a body in chunks, RFC 9112, section 7.1.
type chunked struct {
	r     *bufio.Reader
	left  uint64 // bytes of the chunk that are to come
	begun bool   // the end of a chunk is to come first
	err   error
}

func (c *chunked) Read(p []byte) (n int, err error) {
	for c.err == nil {
		switch {
		case c.left > 0:
			if n == len(p) || n > 0 && c.r.Buffered() == 0 {
				return n, nil
			}
			var m int
			m, c.err = c.r.Read(p[n:][:min(uint64(len(p)-n), c.left)])
			n += m
			c.left -= uint64(m)
		case n > 0 && !c.lineThere():
			return n, nil // the next chunk may be long in coming
		default:
			c.err = c.next()
		}
	}
	if c.err == io.EOF && c.left > 0 {
		c.err = io.ErrUnexpectedEOF
	}
	return n, c.err
}

// lineThere says whether what comes between two chunks, or the end, has been read
// off the connection.
func (c *chunked) lineThere() bool {
	b, _ := c.r.Peek(c.r.Buffered())
	b, ok := bytes.CutPrefix(b, []byte("\r\n"))
	line, rest, whole := bytes.Cut(b, []byte("\n"))
	return ok && whole && (string(line) != "0\r" || bytes.HasPrefix(rest, []byte("\r\n")))
}

// next goes on to the next chunk. The error is io.EOF at the last.
func (c *chunked) next() error {
	left := maxHead
	if c.begun {
		if line, err := c.line(&left); err != nil || line != "" {
			return c.malformed(err)
		}
	}
	c.begun = true
	line, err := c.line(&left)
	if err != nil {
		return err
	}
	size, _, _ := strings.Cut(line, ";")
	size = strings.TrimRight(size, " \t")
	if c.left, err = strconv.ParseUint(size, 16, 63); err != nil || len(size) > 16 || strings.ContainsAny(size, "+_") {
		c.left = 0
		return c.malformed(nil)
	}
	if c.left > 0 {
		return nil
	}
	for { // what may follow is not asked for
		line, err := c.line(&left)
		if err != nil {
			return err
		}
		if line == "" {
			return io.EOF
		}
	}
}

// line reads a line that is not data. Two who do not agree on where it ends would
// see different bodies: it ends as the standard says.
func (c *chunked) line(left *int) (string, error) {
	line, err := rawLine(c.r, left)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	line, ok := strings.CutSuffix(line, "\r")
	if err == nil && !ok {
		err = c.malformed(nil)
	}
	return line, err
}

func (c *chunked) malformed(err error) error {
	if err == nil {
		err = fmt.Errorf("%w: malformed chunks", errMalformed)
	}
	return err
}
