package registryd

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gantry-containers/gantry/internal/registry/catalog"
)

// What a person would lose: connections, to strangers who send a body slower
// than anybody waits for it.
func TestBodiesThatNeverEnd(t *testing.T) {
	r := start(t)
	r.bodyTimeout = 50 * time.Millisecond
	for _, path := range []string{"/", "/token", "/sign-in", "/api/v1/session", "/metrics", "/healthz"} {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: registry.test\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\na", path)
		if _, err := io.ReadAll(c); err != nil { // ends when the registry gives up
			t.Errorf("%s: %v", path, err)
		}
	}
}

// What a person would lose: the registry, to a search of a hundred thousand
// words in every repository, while nobody can push.
func TestSearchesOfTooManyWords(t *testing.T) {
	r := start(t)
	r.push("app", "v1", "", describe("Does things"))
	until(r, "/api/v1/search", "", func(f catalog.Found) bool { return f.Total == 1 })
	// The last word is in no repository: only who reads that far misses.
	query := strings.Repeat("app+", 1000) + "nowhere"
	if f := get[catalog.Found](r, "/api/v1/search?q="+query, ""); f.Total != 1 {
		t.Error("all of a long query was searched for")
	}
}

func TestNamesThatCannotBe(t *testing.T) {
	r := start(t)
	r.push("app", "v1", "", describe("Does things"))
	for _, kind := range []string{"repositories", "tags", "readme", "images"} {
		for _, name := range []string{"app%00v1", "App", "app%5c..", "app%2f", "%61pp%0a"} {
			r.want(404, "GET", "/api/v1/"+kind+"/"+name, "", nil)
		}
	}
	for _, reference := range []string{"..%2F..%2Frecords", "v1%00", "v1!x", "-v1"} {
		r.want(404, "GET", "/api/v1/images/app?reference="+reference, "", nil)
	}
}

// Behind a proxy that speaks TLS a cookie is not for the network in the clear.
func TestCookiesBehindAProxy(t *testing.T) {
	r := start(t, "--trusted-proxy", "127.0.0.1/32")
	r.push("app", "v1", "", describe("Does things"))
	until(r, "/api/v1/search", "", func(f catalog.Found) bool { return f.Total == 1 })
	_, header, _ := r.do("PUT", "/api/v1/stars/app", "", nil, "X-Forwarded-Proto", "https")
	cookie, err := http.ParseSetCookie(header.Get("Set-Cookie"))
	if err != nil || !cookie.Secure || !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode {
		t.Errorf("%v, %v", header, err)
	}
}

// What a person would lose: the registry's connections and files, to clients that
// ask for large blobs and read nothing of them.
func TestAClientThatReadsNothing(t *testing.T) {
	patience := stall
	stall = 500 * time.Millisecond
	t.Cleanup(func() { stall = patience })
	r := start(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 2<<20)
	dgst := r.blob("big", "", data).Digest
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /v2/big/blobs/%s HTTP/1.1\r\nHost: registry.test\r\n\r\n", dgst)
	if _, err := io.ReadFull(c, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); connected(t, c); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the connection is held")
		}
	}
	r.want(200, "GET", "/v2/big/blobs/"+dgst.String(), "", nil)
}

// connected tells whether the kernel has the other end of the connection.
func connected(t *testing.T, c net.Conn) bool {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	_, mine, _ := strings.Cut(c.LocalAddr().String(), ":")
	_, other, _ := strings.Cut(c.RemoteAddr().String(), ":")
	from, _ := strconv.Atoi(other)
	to, _ := strconv.Atoi(mine)
	return strings.Contains(string(table), fmt.Sprintf("0100007F:%04X 0100007F:%04X 01", from, to))
}
