package serve

import (
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-containers/gantry/internal/registry/depot/directory"
)

// registry serves a directory over HTTP.
func registry(t *testing.T, change func(*Options)) *httptest.Server {
	t.Helper()
	d, err := directory.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Depot: d}
	if change != nil {
		change(&o)
	}
	s := httptest.NewServer(New(o))
	t.Cleanup(func() {
		s.Close()
		d.Close()
	})
	return s
}

func host(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "http://") }

// command runs a peer.
func command(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(args[0]); err != nil {
		t.Skipf("%s is not installed: apt-get install %s", args[0], args[0])
	}
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// image makes an OCI image with skopeo's and umoci's own means.
func image(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	command(t, "umoci", "init", "--layout", dir)
	command(t, "umoci", "new", "--image", dir+":one")
	rootfs := t.TempDir()
	command(t, "dd", "if=/dev/urandom", "of="+filepath.Join(rootfs, "file"), "bs=1M", "count=3", "status=none")
	command(t, "umoci", "insert", "--image", dir+":one", filepath.Join(rootfs, "file"), "/file")
	return dir
}

// What a person would lose: the tools they have no longer push to and pull from
// this registry, in the formats these tools make.
func TestSkopeo(t *testing.T) {
	r := registry(t, nil)
	layout := image(t)
	for _, format := range []string{"oci", "v2s2"} {
		remote := "docker://" + host(r) + "/team/app:" + format
		command(t, "skopeo", "copy", "--dest-tls-verify=false", "--format", format, "oci:"+layout+":one", remote)
		// To another repository: its blobs are mounted.
		command(t, "skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--all", remote, "docker://"+host(r)+"/other:"+format)
		back := filepath.Join(t.TempDir(), "back")
		command(t, "skopeo", "copy", "--src-tls-verify=false", "docker://"+host(r)+"/other:"+format, "dir:"+back)
		a := command(t, "skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}} {{.Layers}}", remote)
		b := command(t, "skopeo", "inspect", "--format", "{{.Digest}} {{.Layers}}", "dir:"+back)
		if a != b {
			t.Errorf("%s: pushed %s, pulled %s", format, a, b)
		}
	}
	if tags := command(t, "skopeo", "list-tags", "--tls-verify=false", "docker://"+host(r)+"/team/app"); !strings.Contains(tags, `"v2s2"`) {
		t.Errorf("tags: %s", tags)
	}
	command(t, "skopeo", "delete", "--tls-verify=false", "docker://"+host(r)+"/team/app:oci")
	if tags := command(t, "skopeo", "list-tags", "--tls-verify=false", "docker://"+host(r)+"/team/app"); strings.Contains(tags, `"oci"`) {
		t.Errorf("tags after a delete: %s", tags)
	}
}
