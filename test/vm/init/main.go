// Command init is the first process of a test machine: it mounts what a Linux
// program expects, runs the programs of the job, reports how they ended on the
// serial console and powers the machine off.
//
// It must not know what it runs, and it is started by package vm alone.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/test/vm/job"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: this is the first process of a test machine; it is no use here")
		os.Exit(2)
	}
	code := run()
	fmt.Printf("\n%s %d\n", job.Done, code)
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("init: cannot power off:", err)
	}
	select {}
}

// run does the job and returns the exit code of the first program that failed.
func run() int {
	b, err := os.ReadFile(job.Path)
	if err != nil {
		fmt.Println("init:", err)
		return 125
	}
	var j job.Job
	if err := json.Unmarshal(b, &j); err != nil {
		fmt.Println("init:", err)
		return 125
	}
	if err := enterRoot(); err != nil {
		fmt.Println("init:", err)
		return 125
	}
	if err := mounts(j.CgroupV1); err != nil {
		fmt.Println("init:", err)
		return 125
	}
	for _, m := range j.Modules {
		if err := load(m); err != nil {
			fmt.Printf("init: cannot load the module %s: %v\n", m, err)
			return 125
		}
	}
	for _, args := range j.Commands {
		if code := command(args, j.Env); code != 0 {
			return code
		}
	}
	return 0
}

// command runs a program to its end. As the first process it also reaps what
// other programs leave behind: a container does not end before all that joined
// it have been reaped.
func command(args, env []string) int {
	fmt.Printf("init: %s\n", strings.Join(args, " "))
	p, err := os.StartProcess(args[0], args, &os.ProcAttr{
		Dir:   "/tmp",
		Env:   append([]string{"PATH=/bin:/sbin", "HOME=/root", "TMPDIR=/tmp"}, env...),
		Files: []*os.File{nil, os.Stdout, os.Stdout},
	})
	if err != nil {
		fmt.Println("init:", err)
		return 125
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			fmt.Println("init:", err)
			return 125
		case pid != p.Pid:
		case status.Signaled():
			fmt.Println("init: killed by", status.Signal())
			return 128 + int(status.Signal())
		default:
			return status.ExitStatus()
		}
	}
}

// enterRoot puts a mount over the initial file system and makes it the root:
// nothing can pivot away from the initial one itself.
func enterRoot() error {
	const dir = "/root-mount"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return unix.Mount("/", dir, "", unix.MS_BIND, "") },
		func() error { return unix.Chdir(dir) },
		func() error { return unix.Mount(".", "/", "", unix.MS_MOVE, "") },
		func() error { return unix.Chroot(".") },
		func() error { return unix.Chdir("/") },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("cannot enter the root: %w", err)
		}
	}
	return nil
}

// mounts makes the file systems. With v1 each controller the kernel has gets a
// hierarchy; without, there is one v2 hierarchy.
func mounts(v1 bool) error {
	type mount struct{ fstype, target, data string }
	list := []mount{
		{"proc", "/proc", ""}, {"sysfs", "/sys", ""}, {"devtmpfs", "/dev", ""},
		{"devpts", "/dev/pts", "ptmxmode=0666"}, {"tmpfs", "/dev/shm", ""},
		{"mqueue", "/dev/mqueue", ""}, {"tmpfs", "/run", ""},
		{"bpf", "/sys/fs/bpf", ""}, {"tmpfs", "/tmp", "mode=1777"},
	}
	if v1 {
		list = append(list, mount{"tmpfs", "/sys/fs/cgroup", "mode=755"})
		for _, c := range strings.Fields("cpu,cpuacct cpuset memory devices freezer blkio pids hugetlb net_cls,net_prio") {
			list = append(list, mount{"cgroup", "/sys/fs/cgroup/" + c, c})
		}
	} else {
		list = append(list, mount{"cgroup2", "/sys/fs/cgroup", ""})
	}
	for _, m := range list {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fstype, m.target, m.fstype, 0, m.data); err != nil {
			return fmt.Errorf("cannot mount %s on %s: %w", m.fstype, m.target, err)
		}
	}
	return os.MkdirAll("/root", 0o700)
}

// load inserts one kernel module file of the initial file system.
func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}
