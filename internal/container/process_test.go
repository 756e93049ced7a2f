package container

import (
	"os"
	"os/exec"
	"testing"

	"github.com/containerd/errdefs"
)

// A number that belongs to another process by now is not the container's: what
// is copied or executed would be in a stranger's files.
func TestReusedPid(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	rec := &Record{Name: "c", State: State{Pid: cmd.Process.Pid}}
	proc, err := rec.process()
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	if rec.State.StartTime, err = startTime(proc); err != nil {
		t.Fatal(err)
	}
	again, err := rec.process()
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	earlier := *rec
	earlier.State.StartTime--
	if p, err := earlier.process(); !errdefs.IsConflict(err) {
		p.Close()
		t.Errorf("the process of another run was taken: %v", err)
	}
	if f, err := under(proc, "root", os.O_RDONLY); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
	cmd.Process.Kill()
	cmd.Wait()
	for _, name := range []string{"root", "ns/net", "stat"} {
		if f, err := under(proc, name, os.O_RDONLY); err == nil {
			f.Close()
			t.Errorf("%s of a process that has ended was opened", name)
		}
	}
	if _, err := rec.process(); !errdefs.IsConflict(err) {
		t.Errorf("an ended process: %v", err)
	}
}
