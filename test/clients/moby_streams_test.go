package clients

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// sameJSON compares what two values are on the wire.
func sameJSON(t testing.TB, what string, got, want any) {
	t.Helper()
	a, b := marshal(got), marshal(want)
	for key, value := range b {
		if x, y := encoded(t, a[key]), encoded(t, value); x != y && !(empty(x) && empty(y)) {
			t.Errorf("%s: %s is %s, want %s", what, key, x, y)
		}
	}
}

func marshal(v any) map[string]any {
	data, _ := json.Marshal(v)
	fields := map[string]any{}
	_ = json.Unmarshal(data, &fields)
	return fields
}

func encoded(t testing.TB, v any) string {
	data, err := json.Marshal(v)
	return string(must(t, data, err))
}

func empty(s string) bool { return s == "null" || s == "[]" || s == "{}" || s == `""` }

// exec runs a shell command in a container and returns both its streams.
func (f *fixture) exec(id, command string) string {
	f.Helper()
	return f.execOf(id, "sh", "-c", command)
}

// logs returns the output and the errors in a log.
func (f *fixture) logs(id string, o client.ContainerLogsOptions) (string, string) {
	f.Helper()
	r, err := f.ContainerLogs(f.Context(), id, o)
	must(f.T, 0, err)
	defer r.Close()
	var out, errOut bytes.Buffer
	_, err = stdcopy.StdCopy(&out, &errOut, r)
	must(f.T, 0, err)
	return out.String(), errOut.String()
}

// waitLog returns when the container has written the text.
func (f *fixture) waitLog(id, text string) {
	f.Helper()
	r, err := f.ContainerLogs(f.Context(), id, client.ContainerLogsOptions{ShowStdout: true, Follow: true})
	must(f.T, 0, err)
	defer r.Close()
	for lines := bufio.NewScanner(r); lines.Scan(); {
		if strings.Contains(lines.Text(), text) {
			return
		}
	}
	f.Fatalf("%q is not in the log", text)
}

func TestAttach(t *testing.T) {
	eachVersion(t, func(f *fixture) {
		for _, tty := range []bool{false, true} {
			id := f.create("", container.Config{Cmd: []string{"sh", "-c", "read x; echo got $x; echo err >&2; stty size 2>/dev/null"},
				OpenStdin: true, StdinOnce: true, Tty: tty, AttachStdin: true, AttachStdout: true, AttachStderr: true}, container.HostConfig{ConsoleSize: [2]uint{30, 90}})
			a, err := f.ContainerAttach(f.Context(), id, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
			must(f.T, 0, err)
			media, known := a.MediaType()
			same(f.T, "what it says of frames", known && media == map[bool]string{true: "application/vnd.docker.raw-stream", false: "application/vnd.docker.multiplexed-stream"}[tty], true)
			f.start(id)
			_, err = io.WriteString(a.Conn, "typed\n")
			must(f.T, 0, err)
			if !tty {
				must(f.T, 0, a.CloseWrite())
			}
			if tty {
				out, err := io.ReadAll(a.Reader)
				same(f.T, "the terminal", string(must(f.T, out, err)), "typed\r\ngot typed\r\nerr\r\n30 90\r\n")
			} else {
				var out, errOut bytes.Buffer
				_, err := stdcopy.StdCopy(&out, &errOut, a.Reader)
				must(f.T, 0, err)
				same(f.T, "the streams", out.String()+"|"+errOut.String(), "got typed\n|err\n")
			}
			a.Close()
			f.wait(id, container.WaitConditionNotRunning)
		}
	})
}

// A client detaches with its keys, and comes back to the same container.
func TestDetachKeys(t *testing.T) {
	f := newFixture(t)
	id := f.create("", container.Config{Cmd: []string{"sh"}, OpenStdin: true, Tty: true}, container.HostConfig{})
	a, err := f.ContainerAttach(t.Context(), id, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true, DetachKeys: "ctrl-x,q"})
	must(t, 0, err)
	f.start(id)
	_, err = io.WriteString(a.Conn, "\x18q")
	must(t, 0, err)
	_, err = io.ReadAll(a.Reader)
	must(t, 0, err)
	a.Close()
	same(t, "running", f.inspect(id).State.Running, true)
	_, err = f.ContainerResize(t.Context(), id, client.ContainerResizeOptions{Height: 33, Width: 77})
	must(t, 0, err)
	a, err = f.ContainerAttach(t.Context(), id, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true, Logs: true})
	must(t, 0, err)
	_, err = io.WriteString(a.Conn, "stty size; exit 4\n")
	must(t, 0, err)
	out, err := io.ReadAll(a.Reader)
	same(t, "the new size", strings.Contains(string(must(t, out, err)), "33 77\r\n"), true)
	same(t, "the exit code", f.wait(id, container.WaitConditionNotRunning), 4)
}

func TestLogs(t *testing.T) {
	f := newFixture(t)
	id := f.create("", container.Config{Cmd: []string{"sh", "-c", "for i in 1 2 3 4; do echo o$i; sleep 0.02; done"}, Labels: map[string]string{"l": "v"}},
		container.HostConfig{LogConfig: container.LogConfig{Type: "json-file", Config: map[string]string{"labels": "l"}}})
	f.start(id)
	out, _ := f.logs(id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Follow: true})
	same(t, "the log", out, "o1\no2\no3\no4\n")
	out, errOut := f.logs(id, client.ContainerLogsOptions{ShowStderr: true})
	same(t, "the errors", out+errOut, "")
	out, _ = f.logs(id, client.ContainerLogsOptions{ShowStdout: true, Tail: "2"})
	same(t, "the tail", out, "o3\no4\n")
	out, _ = f.logs(id, client.ContainerLogsOptions{ShowStdout: true, Tail: "1", Details: true})
	same(t, "the details", out, "l=v o4\n")
	out, _ = f.logs(id, client.ContainerLogsOptions{ShowStdout: true, Timestamps: true})
	lines := strings.Split(out, "\n")
	var stamps []string
	for _, line := range lines[:4] {
		stamp, _, _ := strings.Cut(line, " ")
		_, err := time.Parse(time.RFC3339Nano, stamp)
		must(t, 0, err)
		stamps = append(stamps, stamp)
	}
	out, _ = f.logs(id, client.ContainerLogsOptions{ShowStdout: true, Since: stamps[2]})
	same(t, "since the third", out, "o3\no4\n")
	out, _ = f.logs(id, client.ContainerLogsOptions{ShowStdout: true, Until: stamps[1]})
	same(t, "until the second", out, "o1\no2\n")
	out, _ = f.logs(id, client.ContainerLogsOptions{ShowStdout: true, Since: "10s", Tail: "all"})
	same(t, "of the last seconds", out, "o1\no2\no3\no4\n")
	_, err := f.ContainerLogs(t.Context(), id, client.ContainerLogsOptions{})
	wantError(t, err, errdefs.IsInvalidArgument, "at least one")
	_, err = f.ContainerLogs(t.Context(), "none", client.ContainerLogsOptions{ShowStdout: true})
	wantError(t, err, errdefs.IsNotFound, "No such container: none")
}

func TestExec(t *testing.T) {
	eachVersion(t, func(f *fixture) {
		ctx := f.Context()
		id := f.started("", "sleep", "1000")
		e, err := f.ExecCreate(ctx, id, client.ExecCreateOptions{Cmd: []string{"sh", "-c", "id -un; pwd; echo $V; cat; exit 9"}, User: "web", WorkingDir: "/tmp",
			Env: []string{"V=w"}, AttachStdin: true, AttachStdout: true, AttachStderr: true})
		must(f.T, 0, err)
		before, err := f.ExecInspect(ctx, e.ID, client.ExecInspectOptions{})
		same(f.T, "before", err == nil && !before.Running && before.PID == 0 && before.ID == e.ID && before.ContainerID == id, true)
		a, err := f.ExecAttach(ctx, e.ID, client.ExecAttachOptions{})
		must(f.T, 0, err)
		io.WriteString(a.Conn, "in\n")
		must(f.T, 0, a.CloseWrite())
		var out bytes.Buffer
		_, err = stdcopy.StdCopy(&out, &out, a.Reader)
		same(f.T, "the output", must(f.T, out.String(), err), "web\n/tmp\nw\nin\n")
		a.Close()
		after, err := f.ExecInspect(ctx, e.ID, client.ExecInspectOptions{})
		same(f.T, "after", err == nil && !after.Running && after.ExitCode == 9, true)
		_, err = f.ExecStart(ctx, e.ID, client.ExecStartOptions{Detach: true})
		wantError(f.T, err, errdefs.IsConflict, "has already run")

		d, err := f.ExecCreate(ctx, id, client.ExecCreateOptions{Cmd: []string{"sh", "-c", "echo detached >/tmp/d; kill -STOP $$"}})
		must(f.T, 0, err)
		_, err = f.ExecStart(ctx, d.ID, client.ExecStartOptions{Detach: true})
		must(f.T, 0, err)
		running, err := f.ExecInspect(ctx, d.ID, client.ExecInspectOptions{})
		same(f.T, "the detached one", err == nil && running.Running && running.PID > 0, true)

		same(f.T, "a command that is missing", strings.Contains(f.execOf(id, "/none"), "no such file or directory"), true)
		_, err = f.ExecCreate(ctx, "none", client.ExecCreateOptions{Cmd: []string{"true"}})
		wantError(f.T, err, errdefs.IsNotFound, "No such container: none")
	})
}

func (f *fixture) execOf(id string, command ...string) string {
	f.Helper()
	e, err := f.ExecCreate(f.Context(), id, client.ExecCreateOptions{Cmd: command, AttachStdout: true, AttachStderr: true})
	must(f.T, 0, err)
	a, err := f.ExecAttach(f.Context(), e.ID, client.ExecAttachOptions{})
	must(f.T, 0, err)
	defer a.Close()
	var out bytes.Buffer
	_, err = stdcopy.StdCopy(&out, &out, a.Reader)
	return must(f.T, out.String(), err)
}

// A client resizes as soon as its stream is open, when the command may not run
// yet.
func TestExecTerminal(t *testing.T) {
	f := newFixture(t)
	id := f.started("", "sleep", "1000")
	for range 20 {
		e, err := f.ExecCreate(t.Context(), id, client.ExecCreateOptions{Cmd: []string{"sh", "-c", "stty size; read x; stty size"}, TTY: true, AttachStdin: true, AttachStdout: true})
		must(t, 0, err)
		a, err := f.ExecAttach(t.Context(), e.ID, client.ExecAttachOptions{TTY: true})
		must(t, 0, err)
		_, err = f.ExecResize(t.Context(), e.ID, client.ExecResizeOptions{Height: 41, Width: 101})
		must(t, 0, err)
		io.WriteString(a.Conn, "\n")
		out, err := io.ReadAll(a.Reader)
		same(t, "the size", strings.HasSuffix(string(must(t, out, err)), "41 101\r\n"), true)
		a.Close()
	}
	e, err := f.ExecCreate(t.Context(), id, client.ExecCreateOptions{Cmd: []string{"stty", "size"}, TTY: true, AttachStdin: true, AttachStdout: true, ConsoleSize: client.ConsoleSize{Height: 22, Width: 66}})
	must(t, 0, err)
	a, err := f.ExecAttach(t.Context(), e.ID, client.ExecAttachOptions{TTY: true})
	must(t, 0, err)
	defer a.Close()
	out, err := io.ReadAll(a.Reader)
	same(t, "the size from the start", string(must(t, out, err)), "22 66\r\n")
}

func TestStats(t *testing.T) {
	f := newFixture(t)
	id := f.started("counted", "sh", "-c", "while :; do :; done")
	for _, o := range []client.ContainerStatsOptions{{}, {IncludePreviousSample: true}, {Stream: true}} {
		r, err := f.ContainerStats(t.Context(), id, o)
		must(t, 0, err)
		d := json.NewDecoder(r.Body)
		var s container.StatsResponse
		must(t, 0, d.Decode(&s))
		same(t, "whose they are", s.ID == id && s.Name == "/counted", true)
		same(t, "what is counted", s.MemoryStats.Usage > 0 && s.MemoryStats.Limit > 0 && s.CPUStats.CPUUsage.TotalUsage > 0 && s.CPUStats.SystemUsage > 0 && s.CPUStats.OnlineCPUs > 0 && s.PidsStats.Current == 1, true)
		_, eth0 := s.Networks["eth0"]
		same(t, "the interface", eth0, true)
		if o.Stream {
			must(t, 0, d.Decode(&s))
		}
		previous := o.Stream || o.IncludePreviousSample
		same(t, "the sample before", s.PreCPUStats.CPUUsage.TotalUsage > 0 && s.PreCPUStats.CPUUsage.TotalUsage < s.CPUStats.CPUUsage.TotalUsage && s.PreRead.Before(s.Read), previous)
		if !o.Stream {
			same(t, "the end", errors.Is(d.Decode(&s), io.EOF), true)
		}
		r.Body.Close()
	}
}
