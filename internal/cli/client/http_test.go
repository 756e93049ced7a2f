package client

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// answers are what engines, and others, may say.
var answers = []string{
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhirest",
	"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi",
	"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nrest",
	"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n2\r\nhi\r\n5;ext=1\r\n there\r\n0\r\nTrailer: x\r\n\r\nrest",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n5\r\n the",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhixx0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhi",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhi",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\n\r\nuntil the end",
	"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
	"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: Keep-Alive\r\n\r\nhi",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: upgrade, Close\r\n\r\nhi",
	"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nApi-Version: 1.51\r\nx-y: a\r\nX-Y:b\r\nContent-Length: 3\r\n\r\n{}\n",
	"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nstream",
	"HTTP/1.1 204 No Content\r\n\r\nrest",
	"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nrest",
	"HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 500 \r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
	"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nhi",
	"HTTP/1.1 200 OK\r\nContent-Length\r\n\r\nhi",
	"HTTP/1.1 200 OK\r\nbad name: 1\r\n\r\nhi",
	"HTTP/1.1 20 OK\r\n\r\n",
	"HTTP/1.1 abc OK\r\n\r\n",
	"HTTP/2 200 OK\r\n\r\n",
	"SSH-2.0-OpenSSH\r\n",
	"HTTP/1.1 200 OK\r\nX: ",
	"",
}

// outcome is what became of an answer.
type outcome struct {
	status, body, rest string
	header             http.Header
	failed             bool
}

func ours(r io.Reader, method string) (o outcome) {
	b := bufio.NewReader(r)
	resp, err := readResponse(b, &message{method: method})
	if err != nil {
		return outcome{failed: true}
	}
	text, err := io.ReadAll(resp.Body)
	o = outcome{status: resp.Status, body: string(text), header: http.Header(resp.Header), failed: err != nil}
	if err == nil {
		rest, _ := io.ReadAll(b)
		o.rest = string(rest)
	}
	return o
}

func theirs(r io.Reader, method string) (o outcome) {
	b := bufio.NewReader(r)
	for {
		resp, err := http.ReadResponse(b, &http.Request{Method: method})
		if err != nil {
			return outcome{failed: true}
		}
		if resp.StatusCode < 200 && resp.StatusCode != StatusSwitchingProtocols {
			continue
		}
		text, err := io.ReadAll(resp.Body)
		if resp.StatusCode == StatusSwitchingProtocols {
			text, err = nil, nil // the stream, which is ours to read
		}
		o = outcome{status: resp.Status, body: string(text), header: resp.Header, failed: err != nil}
		if err == nil {
			rest, _ := io.ReadAll(b)
			o.rest = string(rest)
		}
		return o
	}
}

// compare fails when net/http reads an answer otherwise. It takes some that we
// refuse, and some headers away.
func compare(t *testing.T, text, method string) {
	t.Helper()
	want := theirs(strings.NewReader(text), method)
	for name, r := range map[string]io.Reader{
		"at once":      strings.NewReader(text),
		"byte by byte": iotest.OneByteReader(strings.NewReader(text)),
	} {
		got := ours(r, method)
		if got.failed || want.failed {
			if want.failed && !got.failed {
				t.Errorf("%s, %s %q was taken: %+v", name, method, text, got)
			}
			continue
		}
		for _, o := range []*outcome{&got, &want} {
			o.header = maps.Clone(o.header)
			o.header.Del("Transfer-Encoding")
			o.header.Del("Trailer")
			o.header.Del("Connection")
		}
		if strings.TrimSpace(got.status) != strings.TrimSpace(want.status) || got.body != want.body || got.rest != want.rest ||
			!maps.EqualFunc(got.header, want.header, slices.Equal) {
			t.Errorf("%s, %s %q:\n got %+v\nwant %+v", name, method, text, got, want)
		}
	}
}

func TestReadResponse(t *testing.T) {
	for _, text := range answers {
		compare(t, text, "GET")
		compare(t, text, "HEAD")
		if strings.Contains(text, "bad name") {
			continue // net/http knows servers that say that
		}
		if want := theirs(strings.NewReader(text), "GET"); want.failed != ours(strings.NewReader(text), "GET").failed {
			t.Errorf("%q: failed is not %v", text, want.failed)
		}
	}
	endless := io.MultiReader(strings.NewReader("HTTP/1.1 200 OK\r\nX: "), neverEnding{})
	if _, err := readResponse(bufio.NewReader(endless), &message{}); err == nil {
		t.Error("a header without an end was read")
	}
}

type neverEnding struct{}

func (neverEnding) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func FuzzReadResponse(f *testing.F) {
	for _, text := range answers {
		f.Add(text, false)
	}
	f.Fuzz(func(t *testing.T, text string, head bool) {
		if head {
			compare(t, text, "HEAD")
		} else {
			compare(t, text, "GET")
		}
	})
}

// What is there of a body in chunks is passed on when no more is: somebody follows
// a log.
func TestChunksDoNotWait(t *testing.T) {
	r, w := io.Pipe()
	defer r.Close()
	body := &chunked{r: bufio.NewReader(r)}
	go func() {
		io.WriteString(w, "3\r\none\r\n")
		io.WriteString(w, "3\r\ntwo\r\n3\r\nth")
	}()
	for _, want := range []string{"one", "twoth"} {
		got := make(chan string, 1)
		go func() {
			b := make([]byte, 100)
			n, _ := body.Read(b)
			if n == 3 && want == "twoth" { // it may come in two
				m, _ := body.Read(b[n:])
				n += m
			}
			got <- string(b[:n])
		}()
		select {
		case s := <-got:
			if s != want {
				t.Errorf("read %q, want %q", s, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%q has come, and nothing was read", want)
		}
	}
}

// What is sent is what net/http reads: the target escaped, headers each on one line
// and none that says where the request ends, and the body.
func TestWriteRequest(t *testing.T) {
	c := &Client{network: "tcp", address: "host:1", version: Version, opts: Options{Agent: "agent\r\nEvil: 1", Headers: map[string]string{
		"meta": "a\nb: c", "Content-Length": "99", "bad name": "x", "transfer-encoding": "identity", "host": "other",
	}}}
	long := strings.Repeat("0123456789", 10_000)
	for name, r := range map[string]*Request{
		"json":   {Method: "POST", Path: "/containers/a b\r\n/x?y#z/%2f", Query: url.Values{"q": {"ä&="}}, JSON: map[string]int{"a": 1}},
		"stream": {Method: "PUT", Path: "/s", Stream: iotest.HalfReader(strings.NewReader(long)), ContentType: "application/x-tar"},
		"empty":  {Method: "POST", Path: "/e"},
		"get":    {Method: "GET", Path: "/g", Header: Header{"X-Own": {"1", "2"}}},
	} {
		m, err := c.request(r)
		if err != nil {
			t.Fatal(name, err)
		}
		var b bytes.Buffer
		if err := m.write(&b); err != nil {
			t.Fatal(name, err)
		}
		raw := bufio.NewReader(&b)
		got, err := http.ReadRequest(raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		body, err := io.ReadAll(got.Body)
		if rest, _ := io.ReadAll(raw); err != nil || len(rest) > 0 {
			t.Errorf("%s: after it comes %q, %v", name, rest, err)
		}
		if got.Method != r.Method || got.URL.Path != "/v"+Version+r.Path || got.URL.RawQuery != r.Query.Encode() || got.Host != "host:1" {
			t.Errorf("%s: %s %s of %s", name, got.Method, got.URL, got.Host)
		}
		if got.Header.Get("User-Agent") != "agent  Evil: 1" || got.Header.Get("Meta") != "a b: c" || got.Header.Get("Evil") != "" ||
			!slices.Equal(got.Header.Values("X-Own"), r.Header["X-Own"]) {
			t.Errorf("%s: header %v", name, got.Header)
		}
		want := map[string]string{"json": `{"a":1}`, "stream": long}[name]
		if string(body) != want {
			t.Errorf("%s: body %.50q", name, body)
		}
	}
}

// A body whose source fails has no end: the engine does not take it for whole.
func TestBodyThatFails(t *testing.T) {
	var b bytes.Buffer
	m := newMessage("POST", "/p", "/p", "h", Header{}, nil, io.MultiReader(strings.NewReader("part"), iotest.ErrReader(errors.New("torn"))))
	if err := m.write(&b); err == nil || err.Error() != "torn" {
		t.Errorf("error %v", err)
	}
	req, err := http.ReadRequest(bufio.NewReader(&b))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(req.Body); err == nil {
		t.Errorf("%q was taken for whole", text)
	}
}
