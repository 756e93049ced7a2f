package layer

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
)

// FuzzUnpack unpacks arbitrary archives in every mode. Whatever they say, only
// the root may be written to, and what came out must be packable again.
func FuzzUnpack(f *testing.F) {
	f.Add(everything(f))
	f.Add(archive(f, e{name: "l", typ: sym, content: "../.."}, e{name: "l/evil", content: "x"}))
	f.Add(archive(f, e{name: "a", typ: sym, content: "/b"}, e{name: "a/c", content: "1"}, e{name: "b/.wh.c"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, mode := range []Whiteouts{Literal, Overlay, Remove} {
			unpackContained(t, data, mode)
		}
	})
}

func unpackContained(t *testing.T, data []byte, mode Whiteouts) {
	outer := memoryDir(t)
	inner := filepath.Join(outer, "in", "root")
	if err := os.MkdirAll(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	canary := filepath.Join(outer, "in", "canary")
	if err := os.WriteFile(canary, []byte("alive"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(inner)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	_, unpackErr := Unpack(context.Background(), root, bytes.NewReader(data), UnpackOptions{Whiteouts: mode})
	for dir, want := range map[string]string{outer: "in", filepath.Join(outer, "in"): "canary root"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, entry := range entries {
			if got != "" {
				got += " "
			}
			got += entry.Name()
		}
		if got != want {
			t.Fatalf("%s has %q", dir, got)
		}
	}
	if content, err := os.ReadFile(canary); err != nil || string(content) != "alive" {
		t.Fatalf("the canary is %q, %v", content, err)
	}
	if unpackErr != nil {
		return
	}
	var again bytes.Buffer
	if err := Pack(context.Background(), root, &again, PackOptions{Whiteouts: mode}); err != nil {
		t.Fatalf("cannot pack what was unpacked: %v", err)
	}
}

// memoryDir is t.TempDir on a file system in memory, where there is one: an
// input is tried three times faster.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "gantry-fuzz-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
