package e2e

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gantry-containers/gantry/internal/enginetest"
)

// counted relays to the engine's socket, and counts the connections.
func counted(t *testing.T) (host string, n *atomic.Int32) {
	t.Helper()
	socket := filepath.Join(shared.Dir, "counted.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	n = &atomic.Int32{}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			n.Add(1)
			engine, err := net.Dial("unix", shared.Socket)
			if err != nil {
				client.Close()
				continue
			}
			go func() {
				io.Copy(engine, client)
				engine.(*net.UnixConn).CloseWrite()
			}()
			go func() {
				io.Copy(client, engine)
				client.Close()
				engine.Close()
			}()
		}
	}()
	return "unix://" + socket, n
}

// What a run without input or a terminal has to say, with its exit code, comes over
// the connection its request went.
func TestRunTakesOneConnection(t *testing.T) {
	host, n := counted(t)
	for _, tt := range []struct {
		args string
		most int32
		want string
	}{
		{"--rm busybox sh -c seq~1~50000;exit~3", 1, "exit status 3"},
		{"busybox sh -c seq~1~50000;exit~3", 1, "exit status 3"},
		{"--rm busybox nosuch", 1, "exit status 127"},
		{"--rm busybox /etc", 1, "exit status 126"},
		{"--rm -a stdout busybox sh -c seq~1~50000;echo~x>&2", 1, "<nil>"},
		{"--rm -a stderr busybox sh -c seq~1~50000~>&2;exit~4", 1, "exit status 4"},
		{"--rm -i busybox sh -c seq~1~50000;exit~5", 2, "exit status 5"},
		{"--rm -t busybox sh -c exit~6", 2, "exit status 6"},
		{"--rm -a stdin busybox sh -c exit~7", 2, "exit status 7"},
	} {
		n.Store(0)
		args := []string{"-H", host, "run", "--network", "none", "--label", "one"}
		for _, arg := range strings.Fields(tt.args) {
			args = append(args, strings.ReplaceAll(arg, "~", " "))
		}
		cmd := shared.Command("gantry", args...)
		var out, errOut strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errOut
		err := cmd.Run()
		lines := strings.Count(out.String(), "\n")
		if strings.Contains(tt.args, "stderr") {
			lines = strings.Count(errOut.String(), "\n")
		}
		if fmt.Sprint(err) != tt.want || n.Load() > tt.most || strings.Contains(tt.args, "seq") && lines != 50000 {
			t.Errorf("run %s: %v over %d connections, with %d lines and %.200q", tt.args, err, n.Load(), lines, errOut.String())
		}
	}
	if out, err := enginetest.Output(shared.Command("gantry", "container", "prune", "-f", "--filter", "label=one")); err != nil {
		t.Error(out, err)
	}
}
