package image

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// However a root filesystem is compressed, the same layer comes of it.
func TestImport(t *testing.T) {
	plain := tarball(t, map[string]string{"etc/": "", "etc/hostname": "box\n"})
	for _, tool := range []string{"", "gzip", "zstd", "xz", "bzip2"} {
		t.Run("with "+tool, func(t *testing.T) {
			data := plain
			if tool != "" {
				need(t, tool)
				cmd := exec.Command(tool, "-c")
				cmd.Stdin = bytes.NewReader(plain)
				var err error
				if data, err = cmd.Output(); err != nil {
					t.Fatal(err)
				}
			}
			r := newRig(t)
			id, err := r.Import(t.Context(), bytes.NewReader(data), ImportOptions{
				Repo: "box", Tag: "1", Message: "from a test", Changes: []string{`CMD ["/bin/true"]`, "ENV A=1"}})
			if err != nil {
				t.Fatal(err)
			}
			img, err := r.Resolve(t.Context(), "box:1", &host)
			if err != nil || img.ID != id || len(img.Layers) != 1 || img.Layers[0] != digest.FromBytes(plain) {
				t.Fatalf("got %+v, %v", img, err)
			}
			if c := img.Config.Config; !reflect.DeepEqual(c.Cmd, []string{"/bin/true"}) || !reflect.DeepEqual(c.Env, []string{"A=1"}) {
				t.Errorf("configuration %+v", c)
			}
			history, err := r.History(t.Context(), "box:1", nil)
			if err != nil || len(history) != 1 || history[0].Comment != "from a test" || history[0].Size != 4 ||
				history[0].ID != id.String() || len(history[0].Tags) != 1 {
				t.Errorf("history %+v, %v", history, err)
			}
			if blobs, layers, ingest := r.left(); blobs != 3 || layers != 1 || ingest != 0 {
				t.Errorf("stored: %d blobs, %d layers, %d unfinished", blobs, layers, ingest)
			}
			file := filepath.Join(t.TempDir(), "saved.tar")
			f, err := os.Create(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Save(t.Context(), []string{"box:1"}, f, nil); err != nil {
				t.Fatal(err)
			}
			f.Close()
			need(t, "skopeo")
			run(t, "skopeo", "copy", "--insecure-policy", "oci-archive:"+file+":1", "dir:"+t.TempDir())
		})
	}
}

func TestImportBad(t *testing.T) {
	plain := tarball(t, map[string]string{"a": "1"})
	for _, c := range []struct {
		name string
		data []byte
		opts ImportOptions
		text string
	}{
		{"no archive", []byte(strings.Repeat("this is not a tar archive ", 100)), ImportOptions{}, "cannot unpack layer"},
		{"cut gzip", gzipped(t, plain)[:40], ImportOptions{}, "cannot import"},
		{"cut between two entries", plain[:1024], ImportOptions{}, "the archive ends in the middle"},
		{"bad change", plain, ImportOptions{Changes: []string{"RUN ls"}}, "run is not a valid change command"},
		{"bad name", plain, ImportOptions{Repo: "UPPER"}, "invalid reference format"},
		{"windows", plain, ImportOptions{Platform: &ocispec.Platform{OS: "windows", Architecture: "amd64"}}, `operating system "windows"`},
		{"a path out of it", tarball(t, map[string]string{"../../etc/x": "1"}), ImportOptions{}, "cannot unpack layer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			_, err := r.Import(t.Context(), bytes.NewReader(c.data), c.opts)
			if err == nil || !strings.Contains(err.Error(), c.text) || !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("got %v", err)
			}
			r.wantNothing()
		})
	}
}

func TestApplyChanges(t *testing.T) {
	type config = dockerspec.DockerOCIImageConfig
	for _, c := range []struct {
		change string
		want   func(*config)
	}{
		{`CMD ["a", "b c"]`, func(c *config) { c.Cmd = []string{"a", "b c"} }},
		{`cmd echo "hi  there"`, func(c *config) { c.Cmd = []string{"/bin/sh", "-c", `echo "hi  there"`} }},
		{`ENTRYPOINT ["/x"]`, func(c *config) { c.Entrypoint = []string{"/x"} }},
		{`ENTRYPOINT []`, func(c *config) { c.Entrypoint = []string{} }},
		{`ENV A=1 B="two words" C=three\ words D='$A'`, func(c *config) {
			c.Env = []string{"PATH=/bin", "A=1", "B=two words", "C=three words", "D=$A"}
		}},
		{`ENV PATH=/sbin:$PATH X=${PATH} Y=${NONE:-default} Z=${PATH:+set}`, func(c *config) {
			c.Env = []string{"PATH=/sbin:/bin", "X=/bin", "Y=default", "Z=set"}
		}},
		{`ENV OLD the old  form`, func(c *config) { c.Env = []string{"PATH=/bin", "OLD=the old  form"} }},
		{"LABEL a=b \\\n \"c d\"=e", func(c *config) { c.Labels = map[string]string{"a": "b", "c d": "e"} }},
		{`WORKDIR sub`, func(c *config) { c.WorkingDir = "/sub" }},
		{`WORKDIR /my dir`, func(c *config) { c.WorkingDir = "/my dir" }},
		{`WORKDIR "/quoted dir"`, func(c *config) { c.WorkingDir = "/quoted dir" }},
		{`USER 1:2`, func(c *config) { c.User = "1:2" }},
		{`EXPOSE 80 53/UDP 8000-8002`, func(c *config) {
			c.ExposedPorts = map[string]struct{}{"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}, "8002/tcp": {}}
		}},
		{`VOLUME /a /b`, func(c *config) { c.Volumes = map[string]struct{}{"/a": {}, "/b": {}} }},
		{`VOLUME ["/a b"]`, func(c *config) { c.Volumes = map[string]struct{}{"/a b": {}} }},
		{`STOPSIGNAL SIGINT`, func(c *config) { c.StopSignal = "SIGINT" }},
		{`ONBUILD RUN make`, func(c *config) { c.OnBuild = []string{"RUN make"} }},
		{`HEALTHCHECK NONE`, func(c *config) { c.Healthcheck = &dockerspec.HealthcheckConfig{Test: []string{"NONE"}} }},
		{`HEALTHCHECK --interval=5s --retries=2 CMD curl x || exit 1`, func(c *config) {
			c.Healthcheck = &dockerspec.HealthcheckConfig{Test: []string{"CMD-SHELL", "curl x || exit 1"},
				Interval: 5 * time.Second, Retries: 2}
		}},
		{`SHELL ["/bin/ash", "-c"]`, func(c *config) { c.Shell = []string{"/bin/ash", "-c"} }},
	} {
		got := config{ImageConfig: ocispec.ImageConfig{Env: []string{"PATH=/bin"}}}
		want := got
		c.want(&want)
		if err := ApplyChanges(&got, []string{c.change}); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v, %v\nwant %+v", c.change, got, err, want)
		}
	}
	for _, bad := range []string{"RUN x", "CMD", "ENV", "ENV A", `ENV A="b`, "EXPOSE 99999", "EXPOSE 1/xyz", "EXPOSE x",
		"WORKDIR", "USER", "", "# only a comment", `CMD ["a", 1]`, `ENTRYPOINT ["a", null]`, "VOLUME []", "VOLUME [1]",
		"HEALTHCHECK CMD []", `HEALTHCHECK CMD ["a", 1]`, "ONBUILD FROM x", "ONBUILD ONBUILD RUN", "HEALTHCHECK x", "HEALTHCHECK CMD",
		"HEALTHCHECK --interval=x CMD y", "HEALTHCHECK --foo=1 CMD y", "SHELL x", "LABEL =x", "EXPOSE 9-1"} {
		if err := ApplyChanges(&config{}, []string{bad}); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzApplyChanges(f *testing.F) {
	for _, s := range []string{`ENV A="b c" D=${A:-x}`, "HEALTHCHECK --interval=1s CMD x", "EXPOSE 1-5/udp", "LABEL a\\\n=b", "ENV $ ${"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c := &dockerspec.DockerOCIImageConfig{}
		if err := ApplyChanges(c, []string{s}); err != nil && !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: %v", s, err)
		}
	})
}
