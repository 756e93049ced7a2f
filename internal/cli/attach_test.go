package cli

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func frame(stream byte, text string) []byte {
	h := make([]byte, 8, 8+len(text))
	h[0] = stream
	binary.BigEndian.PutUint32(h[4:], uint32(len(text)))
	return append(h, text...)
}

const attachRoute = "POST /containers/" + fakeID + "/attach"

// A pipe into a container ends the container's input and not its output:
// echo x | gantry run -i busybox wc.
func TestRunHalfClosedInput(t *testing.T) {
	f := newFake(t)
	f.answer(attachRoute, answer{stream: func(c net.Conn) {
		in, _ := io.ReadAll(c) // returns only when the writing half is closed
		c.Write(frame(2, "warning\n"))
		c.Write(frame(1, strings.ToUpper(string(in))))
	}})
	f.answer("POST /containers/"+fakeID+"/wait", answer{body: `{"StatusCode":3}`})
	cmd := command(t, "gantry", f.Host, "run", "-i", "--rm", "busybox", "cat")
	cmd.Stdin = strings.NewReader("hello\n")
	got := finishRun(t, cmd)
	if diff := cmp.Diff(result{"HELLO\n", "warning\n", 3}, got); diff != "" {
		t.Error(diff)
	}
	for _, c := range f.take() {
		if strings.HasSuffix(c.Path, "/wait") && c.Query.Get("condition") != "removed" {
			t.Errorf("a --rm container is waited for with %q", c.Query.Get("condition"))
		}
	}
}

// The exit code tells a script whether the command failed, could not be
// executed, was not found, or the engine itself failed.
func TestRunExitCodes(t *testing.T) {
	for _, tt := range []struct {
		route, message string
		status, code   int
	}{
		{"POST /containers/create", "Conflict. The name is in use", 409, 125},
		{"POST /containers/create", "bad \"thing\"", 500, 125},
		{"POST /containers/" + fakeID + "/start", `exec: "x": executable file not found in $PATH`, 400, 127},
		{"POST /containers/" + fakeID + "/start", `exec: "/x": stat /x: no such file or directory`, 400, 127},
		{"POST /containers/" + fakeID + "/start", `exec: "/etc": is a directory`, 400, 126},
		{"POST /containers/" + fakeID + "/start", `exec: "/etc/passwd": permission denied`, 400, 126},
		{"POST /containers/" + fakeID + "/start", "port is already allocated", 500, 125},
	} {
		for _, flags := range []string{"", "-d", "--rm", "-d --rm"} {
			t.Run(tt.message+flags, func(t *testing.T) {
				t.Parallel()
				f := newFake(t)
				f.answer(tt.route, answer{status: tt.status, body: `{"message":` + quoted(tt.message) + `}`})
				got := run(t, "gantry", f.Host, append(append([]string{"run"}, strings.Fields(flags)...), "busybox", "x")...)
				if got.Code != tt.code {
					t.Errorf("exit code %d, want %d", got.Code, tt.code)
				}
				if !strings.HasPrefix(got.Err, "gantry: "+tt.message+"\n") || !strings.Contains(got.Err, "Run 'gantry run --help'") {
					t.Errorf("message:\n%s", got.Err)
				}
			})
		}
	}
}

func quoted(s string) string { return `"` + strings.ReplaceAll(s, `"`, `\"`) + `"` }

// An image that is missing is pulled once, and the reports do not mix with the
// container's output.
func TestRunPullsMissingImage(t *testing.T) {
	for _, tt := range []struct {
		flags string
		pulls bool
		err   string
		code  int
	}{
		{"", true, "Unable to find image 'busybox:latest' locally\nlatest: Pulling from library/busybox\n", 0},
		{"-q", true, "", 0},
		{"--pull never", false, "gantry: No such image: busybox:latest\n", 125},
		{"--pull always", true, "latest: Pulling from library/busybox\n", 0},
	} {
		t.Run(tt.flags, func(t *testing.T) {
			f := newFake(t)
			f.answer("POST /containers/create", answer{status: 404, body: `{"message":"No such image: busybox:latest"}`})
			f.answer("POST /images/create", answer{body: `{"status":"Pulling from library/busybox","id":"latest"}`, then: func() {
				delete(f.answers, "POST /containers/create")
			}})
			got := run(t, "gantry", f.Host, append(append([]string{"run", "-d"}, strings.Fields(tt.flags)...), "busybox")...)
			if got.Code != tt.code || !strings.HasPrefix(got.Err, tt.err) {
				t.Errorf("exit code %d, message %q", got.Code, got.Err)
			}
			pulled := false
			for _, c := range f.take() {
				pulled = pulled || c.Path == "/images/create" && c.Query.Get("fromImage") == "docker.io/library/busybox" && c.Query.Get("tag") == "latest"
			}
			if pulled != tt.pulls {
				t.Errorf("pulled: %v", pulled)
			}
			if tt.code == 0 && got.Out != fakeID+"\n" {
				t.Errorf("output %q", got.Out)
			}
		})
	}
}

// --cidfile holds the ID of a container that exists, or does not exist itself.
func TestRunCIDFile(t *testing.T) {
	f := newFake(t)
	name := filepath.Join(t.TempDir(), "cid")
	if got := run(t, "gantry", f.Host, "run", "-d", "--cidfile", name, "busybox"); got.Code != 0 {
		t.Fatal(got)
	}
	if text, _ := os.ReadFile(name); string(text) != fakeID {
		t.Errorf("cidfile holds %q", text)
	}
	got := run(t, "gantry", f.Host, "run", "-d", "--cidfile", name, "busybox")
	if got.Code != 125 || !strings.Contains(got.Err, "container ID file found") {
		t.Error(got)
	}
	f.answer("POST /containers/create", answer{status: 500, body: `{"message":"no"}`})
	name = filepath.Join(t.TempDir(), "cid")
	run(t, "gantry", f.Host, "run", "-d", "--cidfile", name, "busybox")
	if _, err := os.Stat(name); err == nil {
		t.Error("a cidfile was left behind for a container that does not exist")
	}
}

// Signals reach the container, and the command lives until it has ended.
func TestRunProxiesSignals(t *testing.T) {
	f := newFake(t)
	attached, started, killed := make(chan bool, 1), make(chan int, 1), make(chan bool, 1)
	f.answer(attachRoute, answer{stream: func(c net.Conn) {
		attached <- true
		<-killed
		c.Write(frame(1, "bye\n"))
	}})
	f.answer("POST /containers/"+fakeID+"/wait", answer{body: `{"StatusCode":143}`})
	f.answer("POST /containers/"+fakeID+"/kill", answer{status: 204, then: func() { killed <- true }})
	f.answer("POST /containers/"+fakeID+"/start", answer{status: 204, then: func() { started <- f.asking().pid }})
	go func() {
		<-attached
		syscall.Kill(<-started, syscall.SIGTERM)
	}()
	if got := run(t, "gantry", f.Host, "run", "busybox"); got.Code != 143 || got.Out != "bye\n" {
		t.Error(got)
	}
	var signals []string
	for _, c := range f.take() {
		if strings.HasSuffix(c.Path, "/kill") {
			signals = append(signals, c.Query.Get("signal"))
		}
	}
	if diff := cmp.Diff([]string{"SIGTERM"}, signals); diff != "" {
		t.Error(diff)
	}
}

// exec returns the command's exit code, and a terminal that is not there is
// refused before anything is created.
func TestExec(t *testing.T) {
	f := newFake(t)
	f.answer("POST /exec/e1/start", answer{stream: func(c net.Conn) { c.Write(frame(1, "out")); c.Write(frame(2, "err")) }})
	f.answer("GET /exec/e1/json", answer{body: `{"ExitCode":7}`})
	if diff := cmp.Diff(result{"out", "err", 7}, run(t, "gantry", f.Host, "exec", "c", "x")); diff != "" {
		t.Error(diff)
	}
	f.take()
	got := run(t, "gantry", f.Host, "exec", "-it", "c", "sh")
	if got.Code != 1 || !strings.Contains(got.Err, "the input device is not a TTY") || len(f.take()) != 0 {
		t.Error(got)
	}
}

// Old engines are spoken to in their version.
func TestOldEngine(t *testing.T) {
	f := newFake(t)
	f.maxAPI = "1.41"
	for _, args := range [][]string{{"ps"}, {"run", "busybox"}, {"run", "-d", "busybox"}, {"load", "-i", "/dev/null"}, {"rm", "c"}} {
		if got := run(t, "gantry", f.Host, args...); got.Code != 0 {
			t.Errorf("%v: %+v", args, got)
		}
	}
	got := run(t, "gantry", f.Host, "version", "-f", "{{.Client.APIVersion}}")
	if got.Out != "1.41\n" {
		t.Errorf("%+v", got)
	}
}

// Global flags stand before the command and choose the engine.
func TestHostFlag(t *testing.T) {
	f := newFake(t)
	for _, args := range [][]string{{"-H", f.Host, "ps"}, {"--host=" + f.Host, "container", "ls"}, {"-H" + f.Host, "--config", "/nonexistent", "ps"}} {
		cmd := command(t, "gantry", "unix:///nonexistent/docker.sock", args...)
		if got := finishRun(t, cmd); got.Code != 0 || !strings.HasPrefix(got.Out, "CONTAINER ID") {
			t.Errorf("%v: %+v", args, got)
		}
	}
	cmd := command(t, "gantry", "unix:///nonexistent/docker.sock", "ps")
	cmd.Env = append(cmd.Env, "GANTRY_HOST="+f.Host)
	if got := finishRun(t, cmd); got.Code != 0 {
		t.Error(got)
	}
	got := run(t, "gantry", "unix:///nonexistent/docker.sock", "ps")
	if got.Code != 1 || !strings.Contains(got.Err, "cannot connect to the engine at unix:///nonexistent/docker.sock: no such file or directory") {
		t.Error(got)
	}
	if got := run(t, "gantry", "ssh://x", "ps"); got.Code != 1 || !strings.Contains(got.Err, "ssh://") {
		t.Error(got)
	}
}

// A person who mistypes is told what was meant.
func TestUnknownCommand(t *testing.T) {
	got := run(t, "gantry", "unix:///nonexistent", "imagse")
	if got.Code != 1 || got.Err != "gantry: unknown command: gantry imagse\n\nDid you mean 'gantry images'?\n" {
		t.Error(got)
	}
	got = run(t, "gantry", "unix:///nonexistent", "container", "nosuch")
	if got.Code != 1 || !strings.HasPrefix(got.Err, "gantry: unknown command: gantry container nosuch\n") {
		t.Error(got)
	}
}

// A plugin is found in the configuration directory, gets the same arguments and
// our engine, and its exit code is ours.
func TestPlugin(t *testing.T) {
	dir := t.TempDir()
	plugins := filepath.Join(dir, "cli-plugins")
	if err := os.Mkdir(plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\nif [ \"$1\" = docker-cli-plugin-metadata ]; then echo '{\"SchemaVersion\":\"0.1.0\",\"Vendor\":\"x\",\"ShortDescription\":\"Says hello\"}'; exit; fi\necho \"$@ on $DOCKER_HOST\"; exit 9\n"
	if err := os.WriteFile(filepath.Join(plugins, "gantry-hello"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := command(t, "gantry", "unix:///x", "hello", "--flag", "arg")
	cmd.Env = append(cmd.Env, "DOCKER_CONFIG="+dir)
	if diff := cmp.Diff(result{"hello --flag arg on unix:///x\n", "", 9}, finishRun(t, cmd)); diff != "" {
		t.Error(diff)
	}
	cmd = command(t, "gantry", "unix:///x", "--help")
	cmd.Env = append(cmd.Env, "DOCKER_CONFIG="+dir)
	if got := finishRun(t, cmd); !strings.Contains(got.Out, "hello       Says hello") {
		t.Error(got.Out)
	}
}

// Every command explains itself, and no two ways to one differ.
func TestHelp(t *testing.T) {
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	root := a.root(nil)
	if n := len(root.Commands()); n < 35 {
		t.Errorf("only %d commands", n)
	}
	for _, e := range commands() {
		cmd, _, err := root.Find(strings.Fields(e.path))
		if err != nil || cmd.CommandPath() != "gantry "+e.path {
			t.Errorf("%s: found %v, %v", e.path, cmd.CommandPath(), err)
		}
		if cmd.Short == "" {
			t.Errorf("%s has no description", e.path)
		}
	}
	if diff := cmp.Diff([]string{"container list", "container ls", "container ps", "ps"}, pathsOf("container ls")); diff != "" {
		t.Error(diff)
	}
}

// Completion offers the names there are, and does not start an engine.
func TestCompletion(t *testing.T) {
	f := newFake(t)
	f.answer("GET /containers/json", answer{body: `[{"Id":"1","Names":["/web"],"State":"running"},{"Id":"2","Names":["/old"],"State":"exited"}]`})
	got := run(t, "gantry", f.Host, "__complete", "stop", "")
	if !strings.HasPrefix(got.Out, "web\n:") {
		t.Errorf("%+v", got)
	}
	if got := run(t, "gantry", f.Host, "completion", "bash"); got.Code != 0 || !strings.Contains(got.Out, "__start_gantry") {
		t.Errorf("%+v", got)
	}
}
