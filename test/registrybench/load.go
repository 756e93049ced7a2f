package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	manifestGet  = "manifest GET by tag, requests/s"
	manifestHead = "manifest HEAD by tag, requests/s"
	blobHead     = "blob HEAD, requests/s"
	smallGet     = "4 KiB blob GET, requests/s"
	smallPut     = "4 KiB blob PUT (POST, PUT), blobs/s"
	mediumPut    = "64 KiB blob PUT (POST, PUT), blobs/s"
	largePut     = "large blob PUT (POST, PATCH, PUT), MiB/s"
	largeGet     = "large blob GET, MiB/s"
	memory       = "anonymous memory after it, MiB"
)

func (b *bench) names() []string {
	return []string{manifestGet, manifestHead, blobHead, smallGet, smallPut, mediumPut, largePut, largeGet, memory}
}

// load is what one registry is asked. The client is as lean as can be, since it
// shares the processors with the server.
type load struct {
	*bench
	address string
	results map[string]float64
}

// client is a connection.
type client struct {
	net.Conn
	r    *bufio.Reader
	host string
}

func (l *load) dial() (*client, error) {
	c, err := net.Dial("tcp", l.address)
	if err != nil {
		return nil, err
	}
	return &client{c, bufio.NewReaderSize(c, 64<<10), l.address}, nil
}

// do sends a request and reads the answer, whose body is thrown away.
func (c *client) do(method, path, headers string, size int64, body io.Reader, want int) (location string, err error) {
	head := method + " " + path + " HTTP/1.1\r\nHost: " + c.host + "\r\n" + headers
	if method != "GET" && method != "HEAD" {
		head += "Content-Length: " + strconv.FormatInt(size, 10) + "\r\n"
	}
	if small, ok := body.(*bytes.Reader); ok && size < 64<<10 {
		text := make([]byte, 0, len(head)+2+int(size))
		text = append(append(text, head...), '\r', '\n')
		text = text[:len(text)+int(size)]
		small.Read(text[len(text)-int(size):])
		_, err = c.Write(text)
	} else if _, err = io.WriteString(c, head+"\r\n"); err == nil && body != nil {
		_, err = io.CopyN(c.Conn.(*net.TCPConn), body, size)
	}
	if err != nil {
		return "", err
	}
	return c.answer(method, want)
}

func (c *client) answer(method string, want int) (location string, err error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	if len(line) < 12 || string(line[9:12]) != strconv.Itoa(want) {
		rest, _ := c.r.Peek(c.r.Buffered())
		return "", fmt.Errorf("%s answered %q\n%s", method, line, rest)
	}
	length := int64(0)
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return "", err
		}
		if len(line) == 2 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte{':'})
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			length, _ = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
		case bytes.EqualFold(name, []byte("Location")):
			location = string(bytes.TrimSpace(value))
		}
	}
	if method != "HEAD" {
		_, err = io.CopyN(io.Discard, c.r, length)
	}
	return location, err
}

// push uploads a blob as clients do. The location's host is ours to leave out.
func (c *client) push(digest string, size int64, body io.Reader, patch bool) error {
	location, err := c.do("POST", "/v2/bench/blobs/uploads/", "", 0, nil, 202)
	if err != nil {
		return err
	}
	strip := func() { location = location[strings.Index(location, "/v2/"):] }
	strip()
	if patch {
		if location, err = c.do("PATCH", location, "Content-Type: application/octet-stream\r\n", size, body, 202); err != nil {
			return err
		}
		strip()
		size, body = 0, nil
	}
	joint := "?"
	if strings.Contains(location, "?") {
		joint = "&"
	}
	_, err = c.do("PUT", location+joint+"digest="+digest, "Content-Type: application/octet-stream\r\n", size, body, 201)
	return err
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(s[:])
}

// rate has all clients do something for a while and counts.
func (l *load) rate(name string, f func(c *client, i uint64) error) error {
	var done atomic.Uint64
	var all sync.WaitGroup
	failures := make(chan error, l.clients)
	begun := time.Now()
	for range l.clients {
		all.Go(func() {
			c, err := l.dial()
			if err != nil {
				failures <- err
				return
			}
			defer c.Close()
			for time.Since(begun) < l.length {
				if err := f(c, done.Add(1)); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	all.Wait()
	l.results[name] = float64(done.Load()) / time.Since(begun).Seconds()
	select {
	case err := <-failures:
		return fmt.Errorf("%s: %w", name, err)
	default:
		return nil
	}
}

func (l *load) all() error {
	c, err := l.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	small := bytes.Repeat([]byte("0123456789abcde\n"), 256)
	digest := sum(small)
	if err := c.push(digest, int64(len(small)), bytes.NewReader(small), false); err != nil {
		return err
	}
	manifest := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + digest + `","size":4096},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"` + digest + `","size":4096}]}`)
	const accept = "Accept: application/vnd.oci.image.manifest.v1+json\r\n"
	if _, err := c.do("PUT", "/v2/bench/manifests/latest", "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n", int64(len(manifest)), bytes.NewReader(manifest), 201); err != nil {
		return err
	}
	for _, r := range []struct{ name, method, path, headers string }{
		{manifestGet, "GET", "/v2/bench/manifests/latest", accept},
		{manifestHead, "HEAD", "/v2/bench/manifests/latest", accept},
		{blobHead, "HEAD", "/v2/bench/blobs/" + digest, ""},
		{smallGet, "GET", "/v2/bench/blobs/" + digest, ""},
	} {
		err := l.rate(r.name, func(c *client, _ uint64) error {
			_, err := c.do(r.method, r.path, r.headers, 0, nil, 200)
			return err
		})
		if err != nil {
			return err
		}
	}
	for name, size := range map[string]int{smallPut: 4 << 10, mediumPut: 64 << 10} {
		salt := rand.Uint64()
		err := l.rate(name, func(c *client, i uint64) error {
			data := make([]byte, size)
			binary.LittleEndian.PutUint64(data, salt)
			binary.LittleEndian.PutUint64(data[8:], i)
			return c.push(sum(data), int64(size), bytes.NewReader(data), false)
		})
		if err != nil {
			return err
		}
	}
	return l.throughput()
}

func (l *load) throughput() error {
	c, err := l.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	block := make([]byte, 1<<20)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(block)
	h := sha256.New()
	for range l.large {
		h.Write(block)
	}
	digest := "sha256:" + hex.EncodeToString(h.Sum(nil))
	size := l.large << 20
	begun := time.Now()
	if err := c.push(digest, size, &blocks{block: block}, true); err != nil {
		return err
	}
	l.results[largePut] = float64(l.large) / time.Since(begun).Seconds()
	begun = time.Now()
	const times = 3
	for range times {
		if _, err := c.do("GET", "/v2/bench/blobs/"+digest, "", 0, nil, 200); err != nil {
			return err
		}
	}
	l.results[largeGet] = times * float64(l.large) / time.Since(begun).Seconds()
	return nil
}

// blocks yields a block again and again.
type blocks struct {
	block []byte
	at    int
}

func (b *blocks) Read(p []byte) (int, error) {
	n := copy(p, b.block[b.at:])
	b.at = (b.at + n) % len(b.block)
	return n, nil
}
