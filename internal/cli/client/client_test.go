package client

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// engine answers requests on a socket, one goroutine per connection; handle
// returns false to close the connection without an answer.
func engine(t *testing.T, handle func(n int, c net.Conn, r *http.Request) bool) (*Client, func() int) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	accepted := make(chan int, 100)
	go func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- n
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					req, err := http.ReadRequest(r)
					if err != nil || !handle(n, c, req) {
						return
					}
				}
			}()
		}
	}()
	c, err := New(Options{Host: "unix://" + socket, Version: Version})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, func() int { return len(accepted) }
}

const upgrade = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"

// A connection that was made ahead may be gone when it is needed, as after a
// restart of the engine: that is nothing a person should hear of.
func TestPreparedConnectionIsGone(t *testing.T) {
	c, accepted := engine(t, func(n int, conn net.Conn, r *http.Request) bool {
		if n < 2 {
			return false
		}
		io.WriteString(conn, upgrade+"hello")
		return false
	})
	c.Prepare(context.Background(), 2)
	// Both are closed before they answer; what is asked next finds out.
	if _, err := c.Hijack(context.Background(), &Request{Method: http.MethodPost, Path: "/containers/x/attach"}); err != nil {
		t.Fatalf("after %d connections: %v", accepted(), err)
	}
}

func TestMeanwhileRunsOnceWhileTheEngineWorks(t *testing.T) {
	asked := make(chan struct{})
	c, _ := engine(t, func(_ int, conn net.Conn, r *http.Request) bool {
		<-asked // the answer comes only when Meanwhile has run
		io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
		return true
	})
	times := 0
	err := c.JSON(context.Background(), &Request{Method: http.MethodPost, Path: "/x", Meanwhile: func() { times++; close(asked) }}, nil)
	if err != nil || times != 1 {
		t.Errorf("%d times, %v", times, err)
	}
}

func TestPrepareKeepsFew(t *testing.T) {
	c, _ := engine(t, func(int, net.Conn, *http.Request) bool { return false })
	c.Prepare(context.Background(), 100)
	if len(c.idle) != maxIdle {
		t.Errorf("%d idle connections", len(c.idle))
	}
}

// An engine dies while it answers: the person reads a sentence, the program what
// io.Reader says of it.
func TestAnswerIsCut(t *testing.T) {
	c, _ := engine(t, func(_ int, conn net.Conn, _ *http.Request) bool {
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nline\r\n")
		return false
	})
	resp, err := c.Do(t.Context(), &Request{Method: "GET", Path: "/logs"})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if string(got) != "line" || !errors.Is(err, io.ErrUnexpectedEOF) || err.Error() != "the engine went away in the middle of its answer" {
		t.Errorf("%q, %v", got, err)
	}
}

// A socket that cannot be dialed is explained as net.Dial explains it, and one
// that nobody wants any more is not dialed.
func TestDialUnix(t *testing.T) {
	dir := t.TempDir()
	gone := filepath.Join(dir, "gone")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: gone, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for _, path := range []string{gone, filepath.Join(dir, "absent"), dir, "/" + strings.Repeat("x", 200)} {
		c, err := New(Options{Host: "unix://" + path})
		if err != nil {
			t.Fatal(err)
		}
		_, got := c.dial(t.Context())
		_, plain := net.Dial("unix", path)
		if want := (&ConnectError{Host: c.opts.Host, Err: plain}).Error(); got == nil || got.Error() != want {
			t.Errorf("%v\ninstead of\n%v", got, want)
		}
	}
	c, _ := engine(t, func(int, net.Conn, *http.Request) bool { return false })
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if _, err := c.dial(ctx); err != enough {
		t.Errorf("%v", err)
	}
}
