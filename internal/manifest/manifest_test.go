package manifest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/registry"
)

// TestMain lets the test binary be gantry-manifest.
func TestMain(m *testing.M) {
	if os.Getenv("GANTRY_TEST_MANIFEST") == "1" {
		os.Exit(Main(os.Args))
	}
	os.Exit(m.Run())
}

// startRegistry runs Debian's docker-registry and returns its address.
func startRegistry(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: %s\n", filepath.Join(dir, "data"), addr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", config)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for deadline := time.Now().Add(20 * time.Second); ; {
		resp, err := http.Get("http://" + addr + "/v2/")
		if err == nil {
			resp.Body.Close()
			return addr
		}
		if time.Now().After(deadline) {
			t.Fatal("docker-registry does not answer: ", err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// putImage pushes an image of one layer and returns what its manifest is called.
func putImage(t *testing.T, addr, name, mediaType, config string) ocispec.Descriptor {
	t.Helper()
	ctx := context.Background()
	ref, err := reference.ParseNormalizedNamed(addr + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	repo, err := registry.New(registry.Options{}).Repository(ctx, ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	blob := func(mediaType, text string) ocispec.Descriptor {
		d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(text), Size: int64(len(text))}
		if _, err := repo.PushBlob(ctx, d, func(_ context.Context, offset int64) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(text[offset:])), nil
		}, registry.PushOptions{}); err != nil {
			t.Fatal(err)
		}
		return d
	}
	configType, layerType := "application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip"
	if mediaType == ocispec.MediaTypeImageManifest {
		configType, layerType = ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerGzip
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Config: blob(configType, config),
		Layers: []ocispec.Descriptor{blob(layerType, "layer <&> of "+name)}}
	body, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	tag := "latest"
	if tagged, ok := ref.(reference.Tagged); ok {
		tag = tagged.Tag()
	}
	dgst, err := repo.PushManifest(ctx, tag, mediaType, body)
	if err != nil {
		t.Fatal(err)
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: dgst, Size: int64(len(body))}
}

func putIndex(t *testing.T, addr, name string, manifests ...ocispec.Descriptor) {
	t.Helper()
	ref, err := reference.ParseNormalizedNamed(addr + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	repo, err := registry.New(registry.Options{}).Repository(context.Background(), ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests})
	if _, err := repo.PushManifest(context.Background(), ref.(reference.Tagged).Tag(), ocispec.MediaTypeImageIndex, body); err != nil {
		t.Fatal(err)
	}
}

const docker = registry.MediaTypeDockerManifest

// person is who types commands, with a configuration of their own.
type person struct {
	t    *testing.T
	dir  string
	addr string
}

// types runs a command line with one of the clients, in which REG stands for the
// registry, and returns what it printed.
func (p *person) types(client, line string) string {
	p.t.Helper()
	args := append([]string{"manifest"}, strings.Fields(strings.ReplaceAll(line, "REG", p.addr))...)
	path := client
	if client == "gantry" {
		var err error
		if path, err = os.Executable(); err != nil {
			p.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "GANTRY_TEST_MANIFEST=1", "DOCKER_CONFIG="+p.dir)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	failed := cmd.Run() != nil
	first, _, _ := strings.Cut(errOut.String(), "\n")
	first = strings.TrimPrefix(strings.TrimPrefix(first, "gantry: "), "docker: ")
	text := strings.ReplaceAll(strings.ReplaceAll(out.String()+first, "docker manifest", "gantry manifest"), p.addr, "REG")
	return fmt.Sprintf("%sfailed: %v\n", text, failed)
}

// TestSameManifests types the same lines into both clients; what they print, keep
// and push must be the same.
func TestSameManifests(t *testing.T) {
	stock, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("the stock docker client is not installed")
	}
	addr := startRegistry(t)
	amd := putImage(t, addr, "app:amd64", docker, `{"architecture":"amd64","os":"linux","rootfs":{}}`)
	arm := putImage(t, addr, "app:arm", docker, `{"architecture":"arm","os":"linux","variant":"v7"}`)
	putImage(t, addr, "elsewhere/app:arm64", docker, `{"architecture":"arm64","os":"linux"}`)
	oci := putImage(t, addr, "app:oci", ocispec.MediaTypeImageManifest, `{"architecture":"riscv64","os":"linux","os.features":["x"]}`)
	attestation := putImage(t, addr, "app:attestation", ocispec.MediaTypeImageManifest, `{"architecture":"unknown","os":"unknown"}`)
	putImage(t, addr, "app:nowhere", docker, `{}`)
	oci.Platform = &ocispec.Platform{OS: "linux", Architecture: "riscv64"}
	amd.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	putIndex(t, addr, "app:index", oci, amd, attestation)

	for _, story := range []string{
		"inspect --insecure REG/app:amd64;inspect --insecure -v REG/app:amd64;inspect --insecure REG/app:oci;inspect --insecure -v REG/app:oci;inspect --insecure REG/app@" + string(arm.Digest),
		"inspect --insecure REG/app:index;inspect --insecure -v REG/app:index;inspect --insecure REG/app:nosuch;inspect A;inspect;inspect a b c",
		"create --insecure REG/app:all REG/app:amd64 REG/app:arm;create --insecure REG/app:all REG/app:arm;inspect REG/app:all;inspect -v REG/app:all;inspect -v REG/app:all REG/app:arm;inspect REG/app:all REG/app:arm;inspect REG/app:all REG/app:oci;" +
			"annotate REG/app:all REG/app:arm --variant v6 --os-version 3 --os-features a,b;annotate REG/app:all REG/app:arm --arch sparc;annotate REG/app:all REG/app:oci --os linux;inspect REG/app:all;create --insecure --amend REG/app:all REG/elsewhere/app:arm64;push --insecure REG/app:all;" +
			"inspect REG/app:all;push --insecure --purge REG/app:all;push --insecure REG/app:all;inspect --insecure REG/app:all",
		"create --insecure REG/app:oci-list REG/app:oci REG/app:amd64;push --insecure REG/app:oci-list;rm REG/app:oci-list;rm REG/app:oci-list;inspect --insecure REG/app:oci-list",
		"create --insecure REG/app:bad REG/app:nowhere;push --insecure REG/app:bad;create --insecure REG/app:bad2 REG/app:nosuch;create --insecure REG/app:bad3 REG/app:index;create --insecure A b;create a;create --insecure other.example/app:x REG/app:amd64;push --insecure other.example/app:x;annotate A b;annotate b A;rm;rm A nosuch",
	} {
		theirs, ours := &person{t, t.TempDir(), addr}, &person{t, t.TempDir(), addr}
		for _, line := range strings.Split(story, ";") {
			if diff := cmp.Diff(theirs.types(stock, line), ours.types("gantry", line)); diff != "" {
				t.Errorf("%s (-docker +gantry):\n%s", line, diff)
			}
			if diff := cmp.Diff(files(t, theirs.dir), files(t, ours.dir)); diff != "" {
				t.Errorf("%s leaves (-docker +gantry):\n%s", line, diff)
			}
		}
	}
	// One client goes on with what the other has begun.
	for _, pair := range [][2]string{{stock, "gantry"}, {"gantry", stock}} {
		p := &person{t, t.TempDir(), addr}
		p.types(pair[0], "create --insecure REG/app:both REG/app:amd64 REG/elsewhere/app:arm64")
		p.types(pair[1], "annotate REG/app:both REG/app:amd64 --variant v2")
		if got := p.types(pair[0], "push --insecure REG/app:both"); !strings.Contains(got, "sha256:") || strings.Contains(got, "true") {
			t.Errorf("%v: %s", pair, got)
		}
		if got := p.types(pair[1], "inspect REG/app:both"); !strings.Contains(got, `"v2"`) {
			t.Errorf("%v: %s", pair, got)
		}
	}
}

// files are the contents of all files below dir, by name.
func files(t *testing.T, dir string) map[string]any {
	t.Helper()
	all := map[string]any{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		var v any
		if err == nil {
			err = json.Unmarshal(text, &v)
		}
		all[strings.TrimPrefix(path, dir)] = v
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// FuzzImage reads arbitrary files of the store: what is accepted is written so
// that it is read again as the same.
func FuzzImage(f *testing.F) {
	f.Add([]byte(`{"Ref":"a.example/b:c","Descriptor":{"mediaType":"m","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":3},"Raw":"e30=","SchemaV2Manifest":{}}`))
	f.Add([]byte(`{"Ref":"a","Digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","SchemaV2Manifest":{},"Platform":{"os":"x"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		i, err := parseImage("f", text)
		if err != nil {
			return
		}
		_, _ = i.blobs()
		_, _ = i.payload()
		again, err := json.Marshal(i)
		if err != nil {
			t.Fatal(err)
		}
		j, err := parseImage("f", again)
		if err != nil {
			t.Fatalf("%s cannot be read again: %v", again, err)
		}
		if diff := cmp.Diff(i.Descriptor, j.Descriptor); diff != "" {
			t.Fatal(diff)
		}
	})
}
