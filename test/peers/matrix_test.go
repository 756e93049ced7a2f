package peers

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-containers/gantry/internal/enginetest"
)

// room is where the tools of others keep what they work on.
type room struct {
	*fixture
	dir     string
	runroot string // of buildah and podman, which takes no long path
	tree    string // what every image of the test holds
	text    string // of its file
}

func newRoom(f *fixture) *room {
	f.Helper()
	r := &room{fixture: f, dir: f.TempDir(), text: strings.Repeat("what is in it\n", 1000)}
	r.tree = filepath.Join(r.dir, "tree")
	var err error
	if r.runroot, err = os.MkdirTemp("", "room-"); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { os.RemoveAll(r.runroot) })
	if err := os.MkdirAll(filepath.Join(r.tree, "etc"), 0o755); err != nil {
		f.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.tree, "etc", "motd"), []byte(r.text), 0o640); err != nil {
		f.Fatal(err)
	}
	return r
}

// run runs a tool of others, which must be installed.
func (r *room) run(t *testing.T, program string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed here", program)
	}
	out, err := enginetest.Output(exec.Command(program, args...))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// buildah runs it with a storage of its own.
func (r *room) buildah(t *testing.T, args ...string) string {
	t.Helper()
	return r.inStorage(t, "buildah", args...)
}

// inStorage runs buildah or podman, which share their storage.
func (r *room) inStorage(t *testing.T, program string, args ...string) string {
	t.Helper()
	at := []string{"--root", filepath.Join(r.dir, "buildah"), "--runroot", r.runroot, "--storage-driver", "vfs"}
	return r.run(t, program, append(at, args...)...)
}

// built builds an image with buildah and has it pushed by that or by podman.
func (r *room) built(pusher string, more ...string) func(*testing.T, string) {
	return func(t *testing.T, name string) {
		id := r.buildah(t, "from", "scratch")
		r.buildah(t, "copy", "-q", id, r.tree, "/")
		r.buildah(t, "config", "--cmd", "/etc/motd", id)
		r.buildah(t, "commit", "-q", id, name)
		r.buildah(t, "rm", id)
		r.inStorage(t, pusher, append(append([]string{"push", "-q", "--tls-verify=false"}, more...), name)...)
		r.buildah(t, "rmi", name)
	}
}

// layout makes an image as umoci does, in a layout of its own.
func (r *room) layout(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	r.run(t, "umoci", "init", "--layout", dir)
	r.run(t, "umoci", "new", "--image", dir+":1")
	r.run(t, "umoci", "insert", "--image", dir+":1", filepath.Join(r.tree, "etc"), "/etc")
	r.run(t, "umoci", "config", "--image", dir+":1", "--config.cmd", "/etc/motd")
	return dir
}

// makers push an image of the tree under a name, each in its own way.
func (r *room) makers() map[string]func(t *testing.T, name string) {
	skopeo := func(more ...string) func(*testing.T, string) {
		return func(t *testing.T, name string) {
			args := append([]string{"copy", "-q", "--dest-tls-verify=false"}, more...)
			r.run(t, "skopeo", append(args, "oci:"+r.layout(t)+":1", "docker://"+name)...)
		}
	}
	return map[string]func(*testing.T, string){
		"gantry": func(t *testing.T, name string) {
			r.importTree(t, "gantry", name)
			r.do(t, "gantry", "push", name)
		},
		"docker": func(t *testing.T, name string) {
			r.importTree(t, "docker", name)
			r.do(t, "docker", "push", "-q", name)
		},
		"docker-commit": func(t *testing.T, name string) {
			r.importTree(t, "docker", name)
			id := r.do(t, "docker", "create", name, "x")
			r.do(t, "docker", "commit", "-m", "as it is", id, name)
			r.do(t, "docker", "rm", id)
			r.do(t, "docker", "push", "-q", name)
		},
		"umoci":       skopeo(),
		"skopeo-v2s2": skopeo("--format", "v2s2"),
		"skopeo-zstd": skopeo("--dest-compress-format", "zstd"),
		"buildah":     r.built("buildah"),
	}
}

// importTree makes an image of the tree with a client of the engine.
func (r *room) importTree(t *testing.T, client, name string) {
	t.Helper()
	archive := filepath.Join(t.TempDir(), "tree.tar")
	r.run(t, "tar", "-C", r.tree, "-cf", archive, ".")
	r.do(t, client, "import", "-c", "CMD /etc/motd", archive, name)
}

// do runs a client of the engine.
func (r *room) do(t *testing.T, client string, args ...string) string {
	t.Helper()
	out, err := r.try(client, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// takers pull a name and return the ID of the image and the text of its file.
// They push what they pulled back under another name; exact tells that this must
// be the same bytes.
func (r *room) takers() map[string]struct {
	exact bool
	take  func(t *testing.T, name, back string) (id, text string)
} {
	type taker = struct {
		exact bool
		take  func(t *testing.T, name, back string) (id, text string)
	}
	engine := func(client string) taker {
		return taker{true, func(t *testing.T, name, back string) (string, string) {
			r.try("docker", "rmi", "-f", name) // where it was made here
			r.do(t, client, "pull", "-q", name)
			id := strings.TrimPrefix(r.do(t, client, "image", "inspect", "-f", "{{.Id}}", name), "sha256:")
			container := r.do(t, client, "create", name)
			file := filepath.Join(t.TempDir(), "motd")
			r.do(t, client, "cp", container+":/etc/motd", file)
			r.do(t, client, "rm", container)
			r.do(t, client, "tag", name, back)
			r.do(t, client, "push", "-q", back)
			r.do(t, client, "rmi", name, back)
			return id, read(t, file)
		}}
	}
	return map[string]taker{
		"gantry": engine("gantry"),
		"docker": engine("docker"),
		"skopeo": {true, func(t *testing.T, name, back string) (string, string) {
			layout := filepath.Join(t.TempDir(), "layout")
			r.run(t, "skopeo", "copy", "-q", "--src-tls-verify=false", "--preserve-digests", "docker://"+name, "dir:"+layout)
			r.run(t, "skopeo", "copy", "-q", "--dest-tls-verify=false", "--preserve-digests", "dir:"+layout, "docker://"+back)
			var manifest struct{ Config struct{ Digest string } }
			if err := json.Unmarshal([]byte(read(t, filepath.Join(layout, "manifest.json"))), &manifest); err != nil {
				t.Fatal(err)
			}
			return strings.TrimPrefix(manifest.Config.Digest, "sha256:"), r.text
		}},
		"umoci": {false, func(t *testing.T, name, back string) (string, string) {
			layout, bundle := filepath.Join(t.TempDir(), "layout"), filepath.Join(t.TempDir(), "bundle")
			// It knows no zstd, which skopeo may leave as it is.
			plain := filepath.Join(t.TempDir(), "plain")
			r.run(t, "skopeo", "copy", "-q", "--src-tls-verify=false", "--dest-decompress", "docker://"+name, "dir:"+plain)
			r.run(t, "skopeo", "copy", "-q", "dir:"+plain, "oci:"+layout+":1")
			r.run(t, "umoci", "unpack", "--image", layout+":1", bundle)
			r.run(t, "skopeo", "copy", "-q", "--dest-tls-verify=false", "oci:"+layout+":1", "docker://"+back)
			return "", read(t, filepath.Join(bundle, "rootfs/etc/motd"))
		}},
		"buildah": {false, func(t *testing.T, name, back string) (string, string) {
			r.buildah(t, "pull", "-q", "--tls-verify=false", name)
			id := r.buildah(t, "inspect", "--type", "image", "--format", "{{.FromImageID}}", name)
			container := r.buildah(t, "from", "--pull-never", name)
			root := r.buildah(t, "mount", container)
			text := read(t, filepath.Join(root, "etc/motd"))
			r.buildah(t, "umount", container)
			r.buildah(t, "rm", container)
			r.buildah(t, "push", "-q", "--tls-verify=false", name, "docker://"+back)
			r.buildah(t, "rmi", "-f", name)
			return id, text
		}},
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// manifest is what a registry has under a name: its digest, and the ID of the
// image it is of.
func (r *room) manifest(t *testing.T, name string) (dgst, id string) {
	t.Helper()
	host, rest, _ := strings.Cut(name, "/")
	repo, tag, _ := strings.Cut(rest, ":")
	out := r.run(t, "curl", "-sSf", "-H", "Accept: application/vnd.oci.image.manifest.v1+json", "-H", "Accept: application/vnd.docker.distribution.manifest.v2+json",
		fmt.Sprintf("http://%s/v2/%s/manifests/%s", host, repo, tag), "-o", filepath.Join(r.dir, "manifest"))
	_ = out
	data := read(t, filepath.Join(r.dir, "manifest"))
	sum := sha256.Sum256([]byte(data))
	var manifest struct{ Config struct{ Digest string } }
	if err := json.Unmarshal([]byte(data), &manifest); err != nil {
		t.Fatal(err)
	}
	return "sha256:" + hex.EncodeToString(sum[:]), strings.TrimPrefix(manifest.Config.Digest, "sha256:")
}

// What one pushes another pulls, in every direction, and gives back byte for
// byte where it says it does: else an image changes its name on its way through
// a company.
func TestEveryDirection(t *testing.T) {
	addr := enginetest.RegistryFor(t)
	r := newRoom(newFixture(t))
	takers := r.takers()
	makers := r.makers()
	// skopeo remembers where it has seen a layer, and sends the zstd of it to whoever
	// comes after the one that made it.
	order := slices.SortedFunc(maps.Keys(makers), func(a, b string) int {
		return cmp.Or(cmp.Compare(strings.Count(a, "zstd"), strings.Count(b, "zstd")), strings.Compare(a, b))
	})
	for _, maker := range order {
		t.Run(maker, func(t *testing.T) {
			name := addr + "/from/" + maker + ":1"
			makers[maker](t, name)
			dgst, id := r.manifest(t, name)
			for taker, of := range takers {
				t.Run(taker, func(t *testing.T) {
					back := addr + "/by/" + maker + "-" + taker + ":1"
					gotID, text := of.take(t, name, back)
					if text != r.text {
						t.Errorf("the file holds %d other bytes", len(text))
					}
					if gotID != "" && gotID != id {
						t.Errorf("the image is %s and became %s", id, gotID)
					}
					gotDigest, gotID := r.manifest(t, back)
					if of.exact && (gotDigest != dgst || gotID != id) {
						t.Errorf("%s of %s came back as %s of %s", dgst, id, gotDigest, gotID)
					}
				})
			}
		})
	}
}
