package fault

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The daemon is killed while containers are created and started, in one request:
// the commands end, with the container's exit code or a sentence, and what is left
// is whole.
func TestRunWhenDaemonKilled(t *testing.T) {
	f := newFixture(t)
	outcomes := map[string]int{}
	for round := range f.times(3, 8) {
		var list []*ran
		for i, flags := range []string{"--rm", "", "-d", "--rm -t", "-d --rm"} {
			args := append([]string{"run", "--network", "none"}, strings.Fields(flags)...)
			if flags == "" || flags == "-d" {
				args = append(args, "--name", fmt.Sprint("run", round, "-", i))
			}
			list = append(list, f.run(args...))
		}
		time.Sleep(moment(30 * time.Millisecond))
		if err := f.Kill(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		f.start()
		for _, r := range list {
			outcomes[r.end(f)]++
		}
		f.consistent()
		for i := range list {
			f.try("rm", "-f", fmt.Sprint("run", round, "-", i))
		}
		if f.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	t.Log(outcomes)
	f.removeCreated()
	f.clean()
}

// removeCreated removes the containers that were never started, with --rm or not:
// their daemon was killed before.
func (f *fixture) removeCreated() {
	f.Helper()
	for _, id := range strings.Fields(f.ok("ps", "-aq", "--filter", "status=created")) {
		f.ok("rm", id)
	}
}

// ran is a command that creates and starts a container.
type ran struct {
	args     []string
	cmd      *exec.Cmd
	out, err bytes.Buffer
}

func (f *fixture) run(args ...string) *ran {
	f.Helper()
	r := &ran{args: args, cmd: f.Command("gantry", append(args, "busybox", "sh", "-c", "echo all; exit 7")...)}
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.err
	if err := r.cmd.Start(); err != nil {
		f.Fatal(err)
	}
	return r
}

// end returns what became of the command, in short.
func (r *ran) end(f *fixture) string {
	f.Helper()
	hangs := time.AfterFunc(patience, func() { r.cmd.Process.Kill() })
	r.cmd.Wait()
	code, out := r.cmd.ProcessState.ExitCode(), strings.ReplaceAll(r.out.String(), "\r", "")
	switch detached := strings.Contains(strings.Join(r.args, " "), "-d"); {
	case !hangs.Stop():
		f.Errorf("%v hangs, and said %q and %q", r.args, out, &r.err)
	case detached && code == 0 && len(out) == 65 && r.err.Len() == 0, !detached && code == 7 && out == "all\n" && r.err.Len() == 0:
		return "ran"
	case code == 125 && r.err.Len() > 0:
		line, _, _ := strings.Cut(r.err.String(), "\n")
		if strings.HasSuffix(line, "was created but never started") {
			return "never started" // without its name
		}
		return line
	default:
		f.Errorf("%v ended with %d, and said %q and %q", r.args, code, out, &r.err)
	}
	return "wrong"
}
