package server

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	ctypes "github.com/moby/moby/api/types/container"
	itypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	vtypes "github.com/moby/moby/api/types/volume"

	"github.com/gantry-containers/gantry/internal/engine"
	"github.com/gantry-containers/gantry/internal/image"
)

func someUsage() *engine.Usage {
	return &engine.Usage{
		Images:     &image.Usage{Total: 100, Reclaimable: 60, Active: 1, Images: []itypes.Summary{{ID: "a", Size: 40, SharedSize: 10, Containers: 2}, {ID: "b", Size: 70, SharedSize: 10}}},
		Containers: []ctypes.Summary{{ID: "r", State: ctypes.StateRunning, SizeRw: 5}, {ID: "s", State: ctypes.StateExited, SizeRw: 7}},
		Volumes:    []vtypes.Volume{{Name: "u", UsageData: &vtypes.UsageData{Size: 3, RefCount: 1}}, {Name: "v", UsageData: &vtypes.UsageData{Size: 4}}},
	}
}

// Older clients work out for themselves what is used: by the containers of each
// image.
func TestDiskUsageTellsOlderClientsOfContainers(t *testing.T) {
	f := newFixture()
	f.system.usage = someUsage()
	body := f.ask("GET", "/v1.43/system/df", "").Body.String()
	for _, want := range []string{`"LayersSize":100`, `"Containers":2`, `"Containers":0`, `"VirtualSize":40`, `"SizeRw":7`, `"BuildCache":[]`} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in %s", want, body)
		}
	}
}

// The form of API 1.52: sums, and with verbose what they are made of.
func TestDiskUsageInSums(t *testing.T) {
	f := newFixture()
	f.system.usage = someUsage()
	ask := func(query string) (usage system.DiskUsage, body string) {
		t.Helper()
		w := httptest.NewRecorder()
		r := &request{Request: httptest.NewRequest("GET", "/system/df"+query, nil), api: 1_52}
		if err := r.ParseForm(); err != nil {
			t.Fatal(err)
		}
		if err := f.getDiskUsage(&response{ResponseWriter: w}, r); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(w.Body.Bytes(), &usage); err != nil {
			t.Fatal(err)
		}
		return usage, w.Body.String()
	}
	u, body := ask("?verbose=1")
	if i := u.ImageUsage; i.TotalSize != 100 || i.Reclaimable != 60 || i.ActiveCount != 1 || i.TotalCount != 2 || len(i.Items) != 2 {
		t.Errorf("images %+v", i)
	}
	if c := u.ContainerUsage; c.TotalSize != 12 || c.Reclaimable != 7 || c.ActiveCount != 1 || c.TotalCount != 2 || len(c.Items) != 2 {
		t.Errorf("containers %+v", c)
	}
	if v := u.VolumeUsage; v.TotalSize != 7 || v.Reclaimable != 4 || v.ActiveCount != 1 || v.TotalCount != 2 || len(v.Items) != 2 {
		t.Errorf("volumes %+v", v)
	}
	if u.BuildCacheUsage == nil || strings.Contains(body, "LayersSize") {
		t.Errorf("got %s", body)
	}
	u, body = ask("")
	if u.ImageUsage.Items != nil || !strings.Contains(body, `"LayersSize":100`) {
		t.Errorf("a client that may not know the new form got %s", body)
	}
	f.system.usage = &engine.Usage{Volumes: someUsage().Volumes}
	if u, _ = ask("?type=volume&verbose=1"); u.ImageUsage != nil || u.ContainerUsage != nil || u.BuildCacheUsage != nil || u.VolumeUsage == nil {
		t.Errorf("of volumes alone: %+v", u)
	}
}
