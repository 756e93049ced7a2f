package clients

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-containers/gantry/internal/enginetest"
)

// steps runs a script of a user and makes a subtest of each step it tells of.
func (f *fixture) steps(cmd *exec.Cmd) {
	f.Helper()
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+f.Engine.Host(), "DOCKER_CONFIG="+f.Dir, "TESTCONTAINERS_RYUK_DISABLED=true", "REGISTRY="+enginetest.RegistryFor(f.T))
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	told := 0
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		result, rest, _ := strings.Cut(lines.Text(), " ")
		name, why, _ := strings.Cut(rest, ":")
		if result != "PASS" && result != "FAIL" && result != "SKIP" {
			continue
		}
		told++
		f.T.Run(name, func(t *testing.T) {
			switch result {
			case "FAIL":
				t.Error(why)
			case "SKIP":
				t.Skip(why)
			}
		})
	}
	if told == 0 || err != nil && !f.Failed() {
		f.Errorf("%s: %v\n%s%s", cmd, err, out, errOut.String())
	}
}

func TestPython(t *testing.T) {
	// Debian's, which has Debian's docker-py; another one may come first in PATH.
	const python = "/usr/bin/python3"
	if out, err := exec.Command(python, "-c", "import docker").CombinedOutput(); err != nil {
		t.Skipf("python3-docker is not installed: %v %s", err, out)
	}
	f := newFixture(t)
	f.steps(exec.Command(python, "python/user.py"))
}

// modules installs what package.json names into a directory of the test, with
// the scripts beside it.
func modules(t *testing.T) string {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(program + " is not installed")
		}
	}
	dir := t.TempDir()
	files, err := filepath.Glob("node/*.*")
	must(t, 0, err)
	for _, file := range files {
		data, err := os.ReadFile(file)
		must(t, 0, err)
		must(t, 0, os.WriteFile(filepath.Join(dir, filepath.Base(file)), data, 0o644))
	}
	npm := exec.Command("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--prefer-offline")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		t.Skipf("npm cannot install dockerode: %v: %s", err, out)
	}
	return dir
}

func TestNode(t *testing.T) {
	dir := modules(t)
	f := newFixture(t)
	for _, script := range []string{"user.mjs", "testcontainers.mjs"} {
		f.steps(exec.Command("node", filepath.Join(dir, script)))
	}
}

// What skopeo reads out of the engine and puts back is the same image.
func TestSkopeo(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("skopeo is not installed")
	}
	f := newFixture(t)
	oci := "oci:" + filepath.Join(t.TempDir(), "image") + ":latest"
	for _, step := range [][]string{
		{"--src-daemon-host", f.Engine.Host(), "docker-daemon:busybox:latest", oci},
		{"--dest-daemon-host", f.Engine.Host(), oci, "docker-daemon:clients/skopeo:v1"},
	} {
		out, err := exec.Command("skopeo", append([]string{"--insecure-policy", "copy"}, step...)...).CombinedOutput()
		if strings.Contains(string(out), "client version 1.22 is too old") {
			t.Skip("this skopeo speaks version 1.22 of the API, which Docker 28 refuses, too")
		}
		if err != nil {
			t.Fatalf("%v: %v: %s", step, err, out)
		}
	}
	before, err := f.ImageInspect(t.Context(), "busybox")
	must(t, 0, err)
	after, err := f.ImageInspect(t.Context(), "clients/skopeo:v1")
	must(t, 0, err)
	sameJSON(t, "the layers", after.RootFS, before.RootFS)
	same(t, "what it runs", strings.Join(after.Config.Cmd, " "), "sh")
}
