package validation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/opencontainers/runtime-tools/generate"
)

const module = "github.com/opencontainers/runtime-tools"

// binaryEnv names a gantry-oci to test instead of one built for it.
const binaryEnv = "GANTRY_OCI"

// perProgram bounds one program with one runtime. The slowest wait half a minute
// for a container to end by itself.
const perProgram = 60 * time.Second

// subject is a runtime under test.
type subject struct {
	name string
	path string // a wrapper with a state directory of its own
}

// outcome is how one program went with one runtime.
type outcome struct {
	passed, failed, skipped int
	notOK                   []string // what failed
	broken                  string   // why the program did not come to its end
}

func (o outcome) clean() bool { return o.failed == 0 && o.broken == "" }

// worse says that o is a worse result than other: not coming to the end is worse
// than any number of failures.
func (o outcome) worse(other outcome) bool {
	if (o.broken == "") != (other.broken == "") {
		return o.broken != ""
	}
	return o.broken == "" && o.failed > other.failed
}

// String is what the table shows. Some programs have nothing to say unless
// something is wrong.
func (o outcome) String() string {
	if o.clean() && o.passed == 0 {
		return "ok"
	}
	s := fmt.Sprintf("%d/%d", o.passed, o.passed+o.failed)
	if o.broken != "" {
		s += "!"
	}
	return s
}

func TestValidation(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if testing.Short() {
		t.Skip("takes minutes: left out of short runs")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("the validation programs bring a root filesystem for amd64 only")
	}
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("tar is not installed")
	}
	before := cgroups()
	t.Cleanup(func() { clean(t, before) })
	dir := build(t)
	subjects := subjects(t, dir)
	results := runAll(t, dir, subjects)
	again(t, dir, subjects, results)
	for _, s := range subjects {
		sweep(dir, s)
	}
	report(t, subjects, results)
}

// build makes the directory the programs run in: the programs, the test that
// runs inside the containers, the root filesystem.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		t.Skipf("the module %s cannot be had: %v", module, err)
	}
	src := strings.TrimSpace(string(out))
	programs := filepath.Join(dir, "programs") + "/"
	goBuild(t, ".", "-o", programs, module+"/validation/...")
	goBuild(t, ".", "-o", dir+"/", module+"/cmd/runtimetest")
	if os.Getenv(binaryEnv) == "" {
		goBuild(t, "../..", "-o", dir+"/", "./cmd/gantry-oci")
	}
	b, err := os.ReadFile(filepath.Join(src, "rootfs-amd64.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "rootfs-amd64.tar.gz"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func goBuild(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"build"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %v: %v\n%s", args, err, out)
	}
}

// subjects lists gantry-oci and those of runc and crun that are installed.
func subjects(t *testing.T, dir string) []subject {
	t.Helper()
	paths := map[string]string{"gantry-oci": filepath.Join(dir, "gantry-oci")}
	if path := os.Getenv(binaryEnv); path != "" {
		paths["gantry-oci"] = path
	}
	names := []string{"gantry-oci"}
	for _, name := range []string{"runc", "crun"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Logf("%s is not installed: there is less to compare with", name)
			continue
		}
		paths[name] = path
		names = append(names, name)
	}
	var list []subject
	bundle := probeBundle(t, dir)
	for _, name := range names {
		wrapper := filepath.Join(dir, "with-"+name)
		state := filepath.Join(dir, "state-"+name)
		s := subject{name, wrapper}
		wrap(t, s, paths[name], "--root", state)
		out, err := exec.Command(s.path, "run", "--bundle", bundle, "probe").CombinedOutput()
		if err != nil && name == "crun" {
			// crun refuses hybrid machines with a controller in v2: hide v2 from it.
			t.Logf("crun gets a view of the machine without the v2 hierarchy, as it says: %s", strings.TrimSpace(string(out)))
			wrap(t, s, "unshare", "-m", "--propagation", "private", "sh", "-c",
				`'umount /sys/fs/cgroup/unified; exec "$0" "$@"'`, paths[name], "--root", state)
			out, err = exec.Command(s.path, "run", "--bundle", bundle, "probe").CombinedOutput()
		}
		if err != nil && name != "gantry-oci" {
			t.Logf("%s cannot run a container here, so there is less to compare with: %s", name, strings.TrimSpace(string(out)))
			continue
		}
		if err != nil {
			t.Fatalf("gantry-oci cannot run a container here: %v: %s", err, out)
		}
		list = append(list, s)
	}
	return list
}

func wrap(t *testing.T, s subject, words ...string) {
	t.Helper()
	script := "#!/bin/sh\nexec " + strings.Join(words, " ") + " \"$@\"\n"
	if err := os.WriteFile(s.path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
}

// probeBundle makes a bundle of the kind the programs make, to see whether a
// runtime works here at all.
func probeBundle(t *testing.T, dir string) string {
	t.Helper()
	bundle := filepath.Join(dir, "probe")
	if err := os.Mkdir(bundle, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-xf", filepath.Join(dir, "rootfs-amd64.tar.gz"), "-C", bundle).CombinedOutput(); err != nil {
		t.Fatalf("cannot unpack the root filesystem: %v: %s", err, out)
	}
	g, err := generate.New("linux")
	if err != nil {
		t.Fatal(err)
	}
	g.SetRootPath(".")
	g.SetProcessArgs([]string{"true"})
	if err := g.SaveToFile(filepath.Join(bundle, "config.json"), generate.ExportOptions{}); err != nil {
		t.Fatal(err)
	}
	return bundle
}

// sweep deletes the containers a program left behind.
func sweep(dir string, s subject) {
	entries, _ := os.ReadDir(filepath.Join(dir, "state-"+s.name))
	for _, e := range entries {
		_ = exec.Command(s.path, "delete", "--force", e.Name()).Run()
	}
}

// runAll runs every program with every runtime, two at a time. Those about
// cgroups use one fixed path and so run one after the other.
func runAll(t *testing.T, dir string, subjects []subject) map[string]map[string]outcome {
	t.Helper()
	programs, err := filepath.Glob(filepath.Join(dir, "programs", "*"))
	if err != nil || len(programs) == 0 {
		t.Fatalf("no programs were built (%v)", err)
	}
	type job struct {
		program string
		subject subject
	}
	var lanes [2][]job
	for _, p := range programs {
		lane := 0
		if strings.Contains(filepath.Base(p), "cgroup") {
			lane = 1
		}
		for _, s := range subjects {
			lanes[lane] = append(lanes[lane], job{p, s})
		}
	}
	results := map[string]map[string]outcome{}
	var mu sync.Mutex // guards results
	var wg sync.WaitGroup
	others := make(chan job, len(lanes[0]))
	for _, j := range lanes[0] {
		others <- j
	}
	close(others)
	do := func(j job) {
		o := run(t, dir, j.program, j.subject)
		mu.Lock()
		defer mu.Unlock()
		name := filepath.Base(j.program)
		if results[name] == nil {
			results[name] = map[string]outcome{}
		}
		results[name][j.subject.name] = o
	}
	for lane := range 2 {
		wg.Go(func() {
			if lane == 1 {
				for _, j := range lanes[1] {
					do(j)
				}
			}
			for j := range others {
				do(j)
			}
		})
	}
	wg.Wait()
	return results
}

// again runs programs once more in which ours is worse than another: some race
// with the containers they start, which is easier to win against a slow runtime.
func again(t *testing.T, dir string, subjects []subject, results map[string]map[string]outcome) {
	t.Helper()
	for name, row := range results {
		for range 3 {
			ours := row["gantry-oci"]
			if !slices.ContainsFunc(subjects[1:], func(s subject) bool { return ours.worse(row[s.name]) }) {
				break
			}
			if o := run(t, dir, filepath.Join(dir, "programs", name), subjects[0]); ours.worse(o) {
				row["gantry-oci"] = o
			}
		}
	}
}

func run(t *testing.T, dir, program string, s subject) outcome {
	t.Helper()
	tmp, err := os.MkdirTemp(dir, "run")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	ctx, cancel := context.WithTimeout(t.Context(), perProgram)
	defer cancel()
	cmd := exec.CommandContext(ctx, program)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "RUNTIME="+s.path, "TMPDIR="+tmp)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	// A namespace of its own for the mounts some leave behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	err = cmd.Run()
	o := parseTAP(stdout.String())
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		o.broken = fmt.Sprintf("did not end within %s", perProgram)
	case errors.As(err, &exit) && !exit.Success(), err != nil && !errors.Is(err, exec.ErrWaitDelay):
		o.broken = firstLine(stderr.String(), err)
	case o.passed+o.failed == 0 && strings.Contains(stdout.String(), `"error":`):
		_, text, _ := strings.Cut(stdout.String(), `"error":`)
		o.broken = firstLine(text, nil)
	}
	return o
}

func firstLine(s string, err error) string {
	var lines []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) > 3 {
		lines = lines[:3]
	}
	if err != nil {
		lines = append(lines, err.Error())
	}
	return strings.Join(lines, "; ")
}

// parseTAP counts the results of the Test Anything Protocol.
func parseTAP(out string) (o outcome) {
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "ok ") && strings.Contains(strings.ToLower(line), "# skip"):
			o.skipped++
		case strings.HasPrefix(line, "ok "):
			o.passed++
		case strings.HasPrefix(line, "not ok ") && strings.Contains(strings.ToLower(line), "# todo"):
			o.skipped++
		case strings.HasPrefix(line, "not ok "):
			o.failed++
			o.notOK = append(o.notOK, strings.TrimPrefix(line, "not ok "))
		}
	}
	return o
}

// report prints the table and fails the test where ours is worse than both.
func report(t *testing.T, subjects []subject, results map[string]map[string]outcome) {
	t.Helper()
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 8, 2, ' ', 0)
	fmt.Fprint(w, "program")
	for _, s := range subjects {
		fmt.Fprintf(w, "\t%s", s.name)
	}
	fmt.Fprintln(w, "\twhy ours fails")
	clean := map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(results)) {
		row := results[name]
		ours := row["gantry-oci"]
		fmt.Fprint(w, name)
		for _, s := range subjects {
			fmt.Fprintf(w, "\t%s", row[s.name])
			if row[s.name].clean() {
				clean[s.name]++
			}
		}
		why := ""
		if !ours.clean() {
			why = reasons()[name]
			if why == "" {
				t.Errorf("%s: a failure nobody has explained: %v %s", name, ours.notOK, ours.broken)
			}
		}
		fmt.Fprintf(w, "\t%s\n", why)
		worse := len(subjects) > 1
		for _, s := range subjects[1:] {
			worse = worse && ours.worse(row[s.name])
		}
		if worse {
			t.Errorf("%s: ours is worse than all others: %v %s", name, ours.notOK, ours.broken)
		}
	}
	w.Flush()
	t.Logf("passed/run of each program; ! means that it did not come to its end\n%s", table.String())
	for _, s := range subjects {
		t.Logf("%s: %d of %d programs without a failure", s.name, clean[s.name], len(results))
	}
}

// reasons explains each failure of ours in one line.
func reasons() map[string]string {
	const (
		bothWays = "the program expects what the specification forbids or no longer says: "
		machine  = "this machine has not got it: "
	)
	return map[string]string{
		"hooks":                          bothWays + "prestart hooks run by start (1.0); since 1.0.2 create runs them",
		"hooks_stdin":                    bothWays + "its check compares the version with the ID",
		"linux_cgroups_blkio":            machine + "the kernel has no leaf weights (CFQ is gone since 5.0)",
		"linux_cgroups_hugetlb":          machine + "hugetlb is in v2, and the program looks in v1",
		"linux_cgroups_memory":           machine + "limits of kernel memory are gone from Linux since 5.16; the others pass",
		"linux_cgroups_network":          machine + "no net_cls and net_prio controllers",
		"linux_cgroups_relative_blkio":   machine + "the kernel has no leaf weights (CFQ is gone since 5.0)",
		"linux_cgroups_relative_hugetlb": machine + "hugetlb is in v2, and the program looks in v1",
		"linux_cgroups_relative_memory":  machine + "limits of kernel memory are gone from Linux since 5.16; the others pass",
		"linux_cgroups_relative_network": machine + "no net_cls and net_prio controllers",
		"linux_process_apparmor_profile": machine + "no AppArmor",
		"linux_rootfs_propagation":       machine + "this process has no CAP_SYS_RESOURCE to give, and the program asks for all capabilities",
		"pidfile":                        "it kills a container that has ended already, which has to fail",
		"poststart":                      "it wants to see the program's output before the hook's, and both are started at once",
		"prestart":                       bothWays + "prestart hooks run by start (1.0); since 1.0.2 create runs them",
		"process_capabilities":           machine + "this process has no CAP_SYS_RESOURCE to give",
		"process_capabilities_fail":      bothWays + "an unknown capability is an error (1.0); since 1.1 it is a warning",
		"process_rlimits":                "runtimetest is a Go program: its own runtime raises the soft limit of open files it then looks at",
		"start":                          "its last check is the wrong way round: start of a container without a process has to fail, and does",
	}
}

// cgroups lists the cgroups with the names the programs use: two fixed ones, and
// UUIDs.
func cgroups() []string {
	var found []string
	for _, pattern := range []string{
		"cgrouptest", "testdir", "testdir/*", "testdir/*/*",
		"????????-????-????-????-????????????",
	} {
		for _, root := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
			dirs, _ := filepath.Glob(root + pattern)
			for _, d := range dirs {
				if fi, err := os.Stat(d); err == nil && fi.IsDir() {
					found = append(found, d)
				}
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// clean removes the empty cgroups the programs and the other runtimes leave
// behind.
func clean(t *testing.T, before []string) {
	t.Helper()
	for _, d := range slices.Backward(cgroups()) {
		if slices.Contains(before, d) {
			continue
		}
		if err := os.Remove(d); err != nil {
			t.Logf("left behind: %v", err)
		}
	}
}
