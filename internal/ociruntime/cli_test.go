package ociruntime

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"
)

func TestRefusals(t *testing.T) {
	b := newBench(t, "true")
	for _, tc := range []struct {
		words string
		args  []string
	}{
		{"unknown command", []string{"dance"}},
		{"flag provided but not defined", []string{"create", "--wings", "c"}},
		{"ID is missing", []string{"create"}},
		{"ID is missing", []string{"state"}},
		{"unexpected argument", []string{"create", "c", "d"}},
		{"invalid container ID", []string{"create", "../c"}},
		{"invalid container ID", []string{"create", ".."}},
		{"has no config.json", []string{"create", "-b", t.TempDir(), "c"}},
		{"invalid signal", []string{"kill", "c", "SIGNOSUCH"}},
		{"systemd", []string{"--systemd-cgroup", "create", "c"}},
		{"--log-format", []string{"--log-format", "xml", "list"}},
		{"--format", []string{"list", "--format", "xml"}},
		{"console-socket was given", []string{"create", "--console-socket", "/x", "c"}},
	} {
		b.fails(1, tc.words, tc.args...)
	}
	if left, _ := os.ReadDir(b.root); len(left) > 0 {
		t.Errorf("%d state directories were left behind", len(left))
	}
}

func TestBadSpecs(t *testing.T) {
	for name, text := range map[string]string{
		"not JSON":    `{`,
		"no version":  `{}`,
		"other major": `{"ociVersion":"2.0.0","process":{"args":["x"],"cwd":"/"}}`,
		"odd version": `{"ociVersion":"1.x","process":{"args":["x"],"cwd":"/"}}`,
	} {
		if _, err := parseSpec([]byte(text), "config.json"); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	for _, v := range []string{"1.0.0", "1.0.2-dev", "1.3.0", "1.99.0", "1.0.0-rc5+dev"} {
		if err := checkVersion(v); err != nil {
			t.Error(err)
		}
	}
}

func FuzzParseSpec(f *testing.F) {
	example, err := json.Marshal(exampleSpec())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	f.Add([]byte(`{"ociVersion":"1.0.0","process":{"args":[""]},"linux":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSpec(b, "config.json")
		if err == nil && s.Linux == nil {
			t.Fatal("what the commands rely on is missing")
		}
	})
}

// containerd and Podman read the reason of a failure from the log.
func TestLog(t *testing.T) {
	b := newBench(t, "true")
	path := filepath.Join(t.TempDir(), "log")
	b.fails(1, "does not exist", "--log", path, "--log-format", "json", "state", "nope")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var line struct{ Level, Msg, Time string }
	if err := json.Unmarshal(data, &line); err != nil || line.Level != "error" || !strings.Contains(line.Msg, "nope") || line.Time == "" {
		t.Errorf("log is %s (%v)", data, err)
	}
}

func TestVersionFeaturesSpec(t *testing.T) {
	b := newBench(t, "true")
	if out := b.ok("--version"); !strings.Contains(out, "spec: "+specs.Version) {
		t.Errorf("version is %q", out)
	}
	var f features.Features
	if err := json.Unmarshal([]byte(b.ok("features")), &f); err != nil || f.OCIVersionMax != specs.Version || len(f.Linux.Capabilities) < 38 {
		t.Errorf("features %+v, %v", f, err)
	}
	dir := t.TempDir()
	b.ok("spec", "--bundle", dir)
	b.fails(1, "config.json exists", "spec", "--bundle", dir)
	if _, err := readBundle(dir); err != nil {
		t.Error(err)
	}
	for _, c := range commands() {
		if out := b.ok(c.name, "--help"); !strings.Contains(out, "Usage: gantry-oci "+c.name) {
			t.Errorf("help of %s is %q", c.name, out)
		}
	}
}

func TestParseSignal(t *testing.T) {
	for s, want := range map[string]unix.Signal{"9": 9, "KILL": 9, "sigterm": 15, "SIGRTMIN": 34, "RTMIN+3": 37, "SIGRTMAX-1": 63, "RTMAX": 64} {
		if got, err := parseSignal(s); got != want || err != nil {
			t.Errorf("%s is %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "0", "65", "-1", "SIG", "RTMIN-1", "RTMAX+1", "RTMIN+99", "KILL9"} {
		if got, err := parseSignal(s); err == nil {
			t.Errorf("%q is %d", s, got)
		}
	}
}

func TestParseStat(t *testing.T) {
	line := "12 (a ) (b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21"
	if state, begun, err := parseStat(line); state != 'S' || begun != 4711 || err != nil {
		t.Errorf("%c %d %v", state, begun, err)
	}
	for _, s := range []string{"", "12 (a", "12 (a) S 1"} {
		if _, _, err := parseStat(s); err == nil {
			t.Errorf("%q was accepted", s)
		}
	}
}

func TestPick(t *testing.T) {
	got, err := pick("UID PID CMD\nroot 1 init\nroot 22 x\nroot 2 y\n", []int{2, 1})
	if err != nil || got != "UID PID CMD\nroot 1 init\nroot 2 y\n" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := pick("UID CMD\nroot x\n", nil); err == nil {
		t.Error("output without PIDs was accepted")
	}
}
