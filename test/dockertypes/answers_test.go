// Package dockertypes holds our answers against the types that clients of
// Docker 28 decode them into. It is a module of its own, so that Docker's stays
// out of ours.
package dockertypes

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/backend"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/api/types/volume"
)

const answers = "../../internal/server/testdata/answers"

// targets are what the answer of a name is decoded into.
func targets() map[string]func() any {
	return map[string]func() any{
		"container":  func() any { return &container.InspectResponse{} },
		"containers": func() any { return &[]container.Summary{} },
		"exec":       func() any { return &backend.ExecInspect{} },
		"image":      func() any { return &image.InspectResponse{} },
		"images":     func() any { return &[]image.Summary{} },
		"network":    func() any { return &network.Inspect{} },
		"networks":   func() any { return &[]network.Summary{} },
		"info":       func() any { return &system.Info{} },
		"version":    func() any { return &types.Version{} },
		"df":         func() any { return &types.DiskUsage{} },
		"event":      func() any { return &events.Message{} },
		"volume":     func() any { return &volume.Volume{} },
		"volumes":    func() any { return &volume.ListResponse{} },
	}
}

// A field Docker does not know, one it has and we do not send, and one of
// another form all show as a difference after the way there and back.
func TestAnswersHaveDockersForm(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(answers, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatal("no answers", err)
	}
	for _, path := range files {
		name, _, _ := strings.Cut(filepath.Base(path), ".")
		t.Run(filepath.Base(path), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			target := targets()[name]()
			dec := json.NewDecoder(bytes.NewReader(data))
			dec.DisallowUnknownFields()
			if err := dec.Decode(target); err != nil {
				t.Fatal(err)
			}
			again, err := json.Marshal(target)
			if err != nil {
				t.Fatal(err)
			}
			var ours, theirs any
			if err := json.Unmarshal(data, &ours); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(again, &theirs); err != nil {
				t.Fatal(err)
			}
			diff(t, "", ours, theirs)
		})
	}
}

func diff(t *testing.T, path string, ours, theirs any) {
	t.Helper()
	if path == ".Config" && strings.Contains(t.Name(), "image.empty") {
		return // Docker's daemon adds to these what its types leave out
	}
	a, okA := ours.(map[string]any)
	b, okB := theirs.(map[string]any)
	if !okA || !okB {
		listA, okA := ours.([]any)
		listB, okB := theirs.([]any)
		if okA && okB && len(listA) == len(listB) {
			for i := range listA {
				diff(t, path+"[]", listA[i], listB[i])
			}
			return
		}
		if !reflect.DeepEqual(ours, theirs) {
			t.Errorf("%s: we send %v, Docker %v", path, ours, theirs)
		}
		return
	}
	for key, value := range a {
		if other, ok := b[key]; ok {
			diff(t, path+"."+key, value, other)
		} else {
			t.Errorf("%s.%s: Docker does not send it", path, key)
		}
	}
	for key := range b {
		if _, ok := a[key]; !ok {
			t.Errorf("%s.%s: we do not send it", path, key)
		}
	}
}
