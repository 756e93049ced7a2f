package cli

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs testdata/script against a real engine: each file is one story
// a person could type. GANTRY_TEST_HOST names the engine; every script removes
// what it made.
func TestScripts(t *testing.T) {
	host := os.Getenv("GANTRY_TEST_HOST")
	if host == "" {
		t.Skip("GANTRY_TEST_HOST does not name an engine to test against")
	}
	if os.Geteuid() != 0 {
		t.Skip("the engine's socket is root's")
	}
	image := busyboxTar(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(exe, filepath.Join(bin, "gantry")); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:      "testdata/script",
		Deadline: time.Now().Add(60 * time.Second),
		Setup: func(env *testscript.Env) error {
			name := "clitest-" + strings.TrimSuffix(filepath.Base(env.WorkDir), ".txtar")
			env.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			env.Setenv("GANTRY_TEST_MAIN", "1")
			env.Setenv("GANTRY_HOST", host)
			env.Setenv("NAME", strings.ReplaceAll(name, "script-", ""))
			env.Setenv("IMAGE", strings.ReplaceAll(name, "script-", "")+":1")
			return os.WriteFile(filepath.Join(env.WorkDir, "rootfs.tar"), image, 0o644)
		},
	})
}

// busyboxTar is a root filesystem of one static program.
func busyboxTar(t *testing.T) []byte {
	t.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("busybox-static is not installed: ", err)
	}
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	if err := tw.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(busybox))}); err != nil {
		t.Fatal(err)
	}
	tw.Write(busybox)
	for _, name := range []string{"sh", "cat", "echo", "sleep", "wc", "true", "ls"} {
		tw.WriteHeader(&tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777})
	}
	tw.WriteHeader(&tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777})
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
