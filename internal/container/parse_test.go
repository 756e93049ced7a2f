package container

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

func TestParseBind(t *testing.T) {
	for _, test := range []struct {
		in   string
		want Mount
	}{
		{"/data", Mount{Type: mount.TypeVolume, Destination: "/data", RW: true, CopyUp: true}},
		{"vol:/data", Mount{Type: mount.TypeVolume, Name: "vol", Destination: "/data", RW: true, CopyUp: true}},
		{"vol:/data:ro,nocopy", Mount{Type: mount.TypeVolume, Name: "vol", Destination: "/data"}},
		{"/src:/data/", Mount{Type: mount.TypeBind, Source: "/src", Destination: "/data", RW: true, Propagation: "rprivate"}},
		{"/src/../x:/data:ro,rshared", Mount{Type: mount.TypeBind, Source: "/x", Destination: "/data", Propagation: "rshared"}},
		{"/src:/data:z", Mount{Type: mount.TypeBind, Source: "/src", Destination: "/data", RW: true, Propagation: "rprivate"}},
	} {
		got, err := parseBind(test.in, "")
		if err != nil {
			t.Errorf("%s: %v", test.in, err)
			continue
		}
		got.Spec, got.Mode = mount.Mount{}, ""
		if got.Type != test.want.Type || got.Name != test.want.Name || got.Source != test.want.Source || got.Destination != test.want.Destination ||
			got.RW != test.want.RW || got.Propagation != test.want.Propagation || got.CopyUp != test.want.CopyUp {
			t.Errorf("%s:\n got %+v\nwant %+v", test.in, got, test.want)
		}
	}
}

func TestBadBindsAreRefused(t *testing.T) {
	for _, in := range []string{"", ":/x", "/a:/b:ro:more", "/data:ro", "/a:/b:ro,rw", "/a:/b:nonsense", "/a:relative", "/a:/", "vol:relative", "/a:/b:shared,slave"} {
		if m, err := parseBind(in, ""); err == nil {
			t.Errorf("%q was taken for %+v", in, m)
		}
	}
}

// What an image declares as its volumes comes from anywhere: none of it is a
// directory of the host.
func TestDeclaredVolumesAreAnonymous(t *testing.T) {
	for in, want := range map[string]string{"/data": "/data", "/data/": "/data", "data": "/data", "/etc:/x": "/etc:/x", "/etc:/x:ro": "/etc:/x:ro", "name:/x": "/name:/x", "../x": "/x"} {
		m, err := anonymousVolume(in, "")
		if err != nil || m.Type != mount.TypeVolume || m.Name != "" || m.Source != "" || m.Destination != want || !m.RW || !m.CopyUp {
			t.Errorf("%q: %+v %v", in, m, err)
		}
	}
	if m, err := anonymousVolume("/", ""); err == nil {
		t.Errorf("the root is a volume: %+v", m)
	}
}

func FuzzParseBind(f *testing.F) {
	for _, s := range []string{"/a:/b:ro", "v:/b", "/b", "a:b:c:d", ":::", "/a:/b:rslave,Z,nocopy,cached"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parseBind(s, "")
		if err == nil && (!strings.HasPrefix(m.Destination, "/") || m.Destination == "/") {
			t.Errorf("%q mounts on %q", s, m.Destination)
		}
	})
}

func TestDetachKeys(t *testing.T) {
	for in, want := range map[string]string{"": "\x10\x11", "ctrl-a,b": "\x01b", "ctrl-@": "\x00", "ctrl-[": "\x1b", "x": "x"} {
		got, err := parseDetachKeys(in)
		if err != nil || !bytes.Equal(got, []byte(want)) {
			t.Errorf("%q: %q %v", in, got, err)
		}
	}
	for _, in := range []string{"ctrl-", "ctrl-1", "ab", ",", "ctrl-aa"} {
		if got, err := parseDetachKeys(in); err == nil {
			t.Errorf("%q was taken for %q", in, got)
		}
	}
}

// Docker's rules of who wins between an image's and a user's command.
func TestCommandOfImageAndUser(t *testing.T) {
	image := func() *dockerspec.DockerOCIImageConfig {
		c := &dockerspec.DockerOCIImageConfig{}
		c.Entrypoint, c.Cmd = []string{"ep"}, []string{"cmd"}
		c.Env = []string{"A=image", "B=image"}
		return c
	}
	for _, test := range []struct {
		name       string
		entrypoint []string
		cmd        []string
		want       string
	}{
		{"nothing said", nil, nil, "ep cmd"},
		{"a command", nil, []string{"user"}, "ep user"},
		{"an entry point clears the image's command", []string{"own"}, nil, "own"},
		{"both", []string{"own"}, []string{"user"}, "own user"},
		{"an empty entry point takes the image's away", []string{""}, []string{"user"}, "user"},
	} {
		c := &api.Config{Entrypoint: test.entrypoint, Cmd: test.cmd, Env: []string{"A=user"}}
		if err := mergeImage(c, image()); err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if got := strings.Join(append(slices.Clone(c.Entrypoint), c.Cmd...), " "); got != test.want {
			t.Errorf("%s: %q, not %q", test.name, got, test.want)
		}
		if !slices.Equal(c.Env, []string{"A=user", "B=image"}) {
			t.Errorf("%s: environment %q", test.name, c.Env)
		}
	}
	if err := mergeImage(&api.Config{Entrypoint: []string{""}}, image()); err == nil {
		t.Error("a container without a command was allowed")
	}
}

func TestGeneratedNamesAreValid(t *testing.T) {
	for i := range 500 {
		name := generateName(i % 8)
		if err := validName(name); err != nil || !strings.Contains(name, "_") {
			t.Fatalf("%q: %v", name, err)
		}
	}
}

func TestNames(t *testing.T) {
	for _, bad := range []string{"a", "-ab", "a b", "ä1", "a/b", "_a", ".a"} {
		if validName(bad) == nil {
			t.Errorf("%q was allowed", bad)
		}
	}
	for _, good := range []string{"ab", "0a", "a_b.c-d", "A9"} {
		if err := validName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}

func TestParsePs(t *testing.T) {
	out := "UID PID CMD\nroot 10 sleep 1 2\nroot - thread\nroot 11 other\nroot - thread of other\n"
	top, err := parsePs([]byte(out), []int{10})
	if err != nil {
		t.Fatal(err)
	}
	if len(top.Processes) != 2 || top.Processes[0][2] != "sleep 1 2" {
		t.Errorf("%q", top.Processes)
	}
	if _, err := parsePs([]byte("A B\n1 2\n"), nil); err == nil {
		t.Error("output without a PID column was accepted")
	}
}
