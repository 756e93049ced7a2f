package container_test

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/container"
)

// told is what a client reads whom Run attaches: output, and the ending in the last
// frame, nil without one.
type told struct {
	out    string
	ending *container.Ending
}

// toldOf takes a stream to its frames.
func toldOf(t *testing.T, stream []byte) (got told) {
	t.Helper()
	for len(stream) > 0 {
		if len(stream) < 8 || len(stream) < 8+int(binary.BigEndian.Uint32(stream[4:])) || got.ending != nil {
			t.Errorf("after %q and %+v comes %q", got.out, got.ending, stream)
			return got
		}
		text := stream[8 : 8+binary.BigEndian.Uint32(stream[4:])]
		if stream[0] != container.FrameEnding {
			got.out += string(text)
		} else if code, err := strconv.ParseInt(string(text), 10, 64); err == nil {
			got.ending = &container.Ending{WaitResponse: &api.WaitResponse{StatusCode: code}}
		} else if err := json.Unmarshal(text, &got.ending); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		stream = stream[8+len(text):]
	}
	return got
}

// toldRun has Run make a container whose client, which it returns, wants to be told
// how it ended.
func toldRun(t *testing.T, m *container.Manager, o *container.CreateOptions, attach container.AttachOptions) (id string, client net.Conn, err error) {
	t.Helper()
	ends := socketPair(t)
	t.Cleanup(func() { ends[0].Close() })
	ends[0].SetReadDeadline(time.Now().Add(20 * time.Second))
	// The buffer of a client that does not read is full early.
	raw, err := ends[1].(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<12) })
	if err != nil {
		t.Fatal(err)
	}
	attach.Stream = true
	o.Config.OpenStdin = true
	err = m.Run(t.Context(), o, &container.RunOptions{
		Attach:  attach,
		TellEnd: true,
		Created: func(answer api.CreateResponse, _ bool) (net.Conn, []byte, error) {
			id = answer.ID
			return ends[1], nil, nil
		},
	})
	return id, ends[0], err
}

func frameOptions(host *api.HostConfig, argv ...string) *container.CreateOptions {
	o := runOptions(host, argv...)
	o.Config.Tty = false
	return o
}

func readTold(t *testing.T, client net.Conn) told {
	t.Helper()
	stream, err := io.ReadAll(client)
	if err != nil {
		t.Errorf("after %q: %v", stream, err)
	}
	return toldOf(t, stream)
}

// The end of the stream tells how the run ended, after all output, once a wait would:
// a container that removes itself is gone by then.
func TestStreamTellsTheEnd(t *testing.T) {
	m := newEngine(t).Containers
	for _, rm := range []bool{false, true} {
		o := frameOptions(&api.HostConfig{AutoRemove: rm}, "sh", "-c", "seq 1 20000; exit 7")
		id, client, err := toldRun(t, m, o, container.AttachOptions{Stdout: true, Stderr: true})
		if err != nil {
			t.Fatal(err)
		}
		got := readTold(t, client)
		if got.ending == nil || got.ending.WaitResponse == nil || got.ending.StatusCode != 7 || got.ending.Error != nil || got.ending.Failure != "" {
			t.Errorf("told %+v", got.ending)
		}
		if !strings.HasPrefix(got.out, "1\n2\n") || !strings.HasSuffix(got.out, "\n20000\n") {
			t.Errorf("%d bytes of output came", len(got.out))
		}
		info, err := m.Inspect(t.Context(), id, false)
		if rm && !errdefs.IsNotFound(err) || !rm && (err != nil || info.State.Running || info.State.ExitCode != 7) {
			t.Errorf("when it was told: %v", err)
		}
	}
}

// A start that fails is told with its reason when nothing more comes of it.
func TestStreamTellsOfAFailedStart(t *testing.T) {
	m := newEngine(t).Containers
	stopped := create(t, m, "true")
	for name, tt := range map[string]struct {
		network api.NetworkMode
		argv    string
	}{
		"by the shim":  {"none", "nosuch"},
		"before it is": {api.NetworkMode("container:" + stopped), "true"},
	} {
		for _, rm := range []bool{false, true} {
			o := frameOptions(&api.HostConfig{AutoRemove: rm, NetworkMode: tt.network}, tt.argv)
			_, client, err := toldRun(t, m, o, container.AttachOptions{Stdout: true})
			if err == nil {
				t.Fatalf("%s: it started", name)
			}
			if got := readTold(t, client); got.out != "" || got.ending == nil || got.ending.Failure != err.Error() || got.ending.WaitResponse != nil {
				t.Errorf("%s: told %+v; the error is %v", name, got, err)
			}
		}
	}
}

// Where it cannot be told apart from output, or could be lost with a client's unread
// input, nothing is told: the stream ends as ever.
func TestStreamDoesNotTell(t *testing.T) {
	m := newEngine(t).Containers
	for name, tt := range map[string]struct {
		attach container.AttachOptions
		tty    bool
		want   string
	}{
		"terminal": {container.AttachOptions{Stdout: true}, true, "out\r\n"},
		"input":    {container.AttachOptions{Stdin: true, Stdout: true}, false, "\x01\x00\x00\x00\x00\x00\x00\x04out\n"},
	} {
		o := frameOptions(&api.HostConfig{}, "sh", "-c", "echo out")
		o.Config.Tty = tt.tty
		_, client, err := toldRun(t, m, o, tt.attach)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(client); err != nil || string(got) != tt.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// A container that is started again is told of when its client's part is over: with
// the first run, or, if it removes itself, when it is gone.
func TestStreamTellsOnce(t *testing.T) {
	m := newEngine(t).Containers
	script := "test -e /again || { touch /again; exit 7; }; exit 8"
	_, client, err := toldRun(t, m, frameOptions(&api.HostConfig{RestartPolicy: api.RestartPolicy{Name: "on-failure", MaximumRetryCount: 1}}, "sh", "-c", script), container.AttachOptions{Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := readTold(t, client); got.ending == nil || got.ending.StatusCode != 7 {
		t.Errorf("of one that is restarted: %+v", got.ending)
	}
	id, client, err := toldRun(t, m, frameOptions(&api.HostConfig{AutoRemove: true}, "sleep", "1000"), container.AttachOptions{Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	zero := 0
	if err := m.Restart(t.Context(), id, container.StopOptions{Timeout: &zero}); err != nil {
		t.Fatal(err)
	}
	if !m.Tells(id) {
		t.Error("it was told of a container that runs again")
	}
	if err := m.Kill(t.Context(), id, "KILL"); err != nil {
		t.Fatal(err)
	}
	if got := readTold(t, client); got.ending == nil || got.ending.StatusCode != 137 {
		t.Errorf("of one that was restarted: %+v", got.ending)
	}
}

// A client that goes is not kept for as long as its container runs.
func TestStreamOfAClientThatGoes(t *testing.T) {
	m := newEngine(t).Containers
	id, client, err := toldRun(t, m, frameOptions(&api.HostConfig{}, "sleep", "1000"), container.AttachOptions{Stdout: true})
	if err != nil || !m.Tells(id) {
		t.Fatal(err)
	}
	client.Close()
	for end := time.Now().Add(20 * time.Second); m.Tells(id); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("its connection is still there")
		}
	}
}

// A client that does not read holds nobody up. It gets all output, and must ask.
func TestStreamOfAClientThatDoesNotRead(t *testing.T) {
	m := newEngine(t).Containers
	id, client, err := toldRun(t, m, frameOptions(&api.HostConfig{AutoRemove: true}, "head", "-c", "60000", "/bin/busybox"), container.AttachOptions{Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := firstExit(t, m, id); err != nil || answer.StatusCode != 0 {
		t.Errorf("%+v, %v", answer, err)
	}
	if got := readTold(t, client); len(got.out) != 60000 || got.ending != nil {
		t.Errorf("%d bytes came, and %+v", len(got.out), got.ending)
	}
	// One that has everything but the last word.
	ends := socketPair(t)
	defer ends[0].Close()
	ends[1].SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	full := 0
	for err == nil {
		var n int
		n, err = ends[1].Write(make([]byte, 1<<10))
		full += n
	}
	if err := container.Say(ends[1], &container.Ending{Failure: "x"}); err != nil {
		t.Fatal(err)
	}
	ends[1].Close()
	if got, err := io.ReadAll(ends[0]); err != nil || len(got) != full {
		t.Errorf("%d bytes came, not %d; %v", len(got), full, err)
	}
}
