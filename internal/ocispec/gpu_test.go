package ocispec

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	api "github.com/moby/moby/api/types/container"
)

// cdiFiles describes devices as NVIDIA's toolkit does: by number, by UUID, and
// all at once.
func cdiFiles(t *testing.T, kind string) string {
	t.Helper()
	dir := t.TempDir()
	text := `{"cdiVersion": "0.5.0", "kind": "` + kind + `", "containerEdits": {"env": ["NVIDIA_VISIBLE_DEVICES=void"]}, "devices": [
		{"name": "0", "containerEdits": {"env": ["GPU0=yes"]}},
		{"name": "1", "containerEdits": {"env": ["GPU1=yes"]}},
		{"name": "GPU-955ef018", "containerEdits": {"env": ["GPU1=yes"]}},
		{"name": "all", "containerEdits": {"env": ["GPU0=yes", "GPU1=yes"]}}]}`
	if err := os.WriteFile(filepath.Join(dir, "gpu.json"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestGPUs(t *testing.T) {
	nvidia, amd := cdiFiles(t, "nvidia.com/gpu"), cdiFiles(t, "amd.com/gpu")
	gpu := [][]string{{"gpu"}}
	for name, test := range map[string]struct {
		dir     string
		request api.DeviceRequest
		gpus    []string
		err     string
	}{
		"all":                {nvidia, api.DeviceRequest{Count: -1, Capabilities: gpu}, []string{"GPU0", "GPU1"}, ""},
		"one":                {nvidia, api.DeviceRequest{Count: 1, Capabilities: gpu}, []string{"GPU0"}, ""},
		"none":               {nvidia, api.DeviceRequest{Capabilities: gpu}, nil, ""},
		"by UUID":            {nvidia, api.DeviceRequest{DeviceIDs: []string{"GPU-955ef018"}, Capabilities: gpu}, []string{"GPU1"}, ""},
		"qualified":          {nvidia, api.DeviceRequest{DeviceIDs: []string{"nvidia.com/gpu=1"}, Capabilities: gpu}, []string{"GPU1"}, ""},
		"driver":             {nvidia, api.DeviceRequest{Driver: "nvidia", Count: 1, Capabilities: [][]string{{"utility", "gpu"}}}, []string{"GPU0"}, ""},
		"second capability":  {nvidia, api.DeviceRequest{Count: 1, Capabilities: [][]string{{"gpu", "tensor"}, {"compute"}}}, []string{"GPU0"}, ""},
		"AMD":                {amd, api.DeviceRequest{Count: -1, Capabilities: gpu}, []string{"GPU0", "GPU1"}, ""},
		"nobody's":           {t.TempDir(), api.DeviceRequest{Count: -1, Capabilities: gpu}, nil, `could not select device driver "" with capabilities: [[gpu]]`},
		"other driver":       {nvidia, api.DeviceRequest{Driver: "amd", Count: -1, Capabilities: gpu}, nil, `could not select device driver "amd" with capabilities: [[gpu]]`},
		"unknown capability": {nvidia, api.DeviceRequest{Count: -1, Capabilities: [][]string{{"gpu", "tensor"}}}, nil, `could not select device driver "" with capabilities: [[gpu tensor]]`},
		"no capability":      {nvidia, api.DeviceRequest{Count: -1}, nil, `could not select device driver "" with capabilities: []`},
		"too many":           {nvidia, api.DeviceRequest{Count: 3, Capabilities: gpu}, nil, "unresolvable CDI devices nvidia.com/gpu=2"},
		"far too many":       {nvidia, api.DeviceRequest{Count: 1 << 30, Capabilities: gpu}, nil, "no machine has more"},
		"both":               {nvidia, api.DeviceRequest{Count: 1, DeviceIDs: []string{"0"}, Capabilities: gpu}, nil, "cannot set both Count and DeviceIDs on device request"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := tryBuild(func(in *Input) {
				in.CDISpecDirs = []string{test.dir}
				in.HostConfig.DeviceRequests = []api.DeviceRequest{test.request}
			})
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("%v, want %s", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range s.Process.Env {
				if name, ok := strings.CutSuffix(e, "=yes"); ok {
					got = append(got, name)
				}
			}
			if !slices.Equal(got, test.gpus) {
				t.Errorf("%v, want %v", got, test.gpus)
			}
		})
	}
}
