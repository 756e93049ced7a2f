package server

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	ctypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	itypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	ntypes "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	vtypes "github.com/moby/moby/api/types/volume"

	"github.com/gantry-containers/gantry/internal/engine"
	"github.com/gantry-containers/gantry/internal/filter"
)

var update = flag.Bool("update", false, "write testdata/answers anew")

// fill sets everything that can be set to something that is not zero, so that
// a field an answer loses is missed.
func fill(v reflect.Value, depth int) {
	switch p := v.Addr().Interface().(type) {
	case *time.Time:
		*p = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
		return
	case *netip.Addr:
		*p = netip.MustParseAddr("10.0.0.2")
		return
	case *netip.Prefix:
		*p = netip.MustParsePrefix("10.0.0.0/24")
		return
	case *network.Port:
		*p = network.MustParsePort("80/tcp")
		return
	case *network.HardwareAddr:
		*p = network.HardwareAddr{2, 0, 0, 0, 0, 1}
		return
	case *json.RawMessage:
		*p = json.RawMessage(`{}`)
		return
	}
	if depth == 0 {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(7)
	case reflect.Float64:
		v.SetFloat(0.5)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth-1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), depth-1)
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), depth-1)
		}
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, depth-1)
		fill(value, depth-1)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Interface:
		if v.NumMethod() == 0 {
			v.Set(reflect.ValueOf("text"))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), depth-1)
			}
		}
	}
}

// filled returns a T with nothing left out, or with nothing in it.
func filled[T any](full bool) *T {
	v := new(T)
	if full {
		fill(reflect.ValueOf(v).Elem(), 12)
	}
	return v
}

// The answers of testdata are read by the module in test/dockertypes into the
// types of Docker 28, which the clients of that time are built with: nothing
// may be missing, surplus, or of another form.
func TestAnswers(t *testing.T) {
	for _, full := range []bool{true, false} {
		kind := "empty"
		if full {
			kind = "full"
		}
		f := newFixture()
		f.Server.volumes = &fakeVolumes{filled[vtypes.Volume](full)}
		f.containers.inspect = filled[ctypes.InspectResponse](full)
		f.containers.exec = filled[ctypes.ExecInspectResponse](full)
		f.containers.list = []ctypes.Summary{*filled[ctypes.Summary](full)}
		f.images.inspect = filled[itypes.InspectResponse](full)
		f.images.list = []itypes.Summary{*filled[itypes.Summary](full)}
		f.networks.inspect = filled[ntypes.Inspect](full)
		f.system.info = filled[system.Info](full)
		f.system.usage = filled[engine.Usage](full)
		f.system.past = []events.Message{*filled[events.Message](full)}
		f.system.events = make(chan events.Message)
		close(f.system.events)
		if full {
			n := f.containers.inspect.NetworkSettings
			n.Networks["bridge"] = n.Networks["text"]
			delete(n.Networks, "text")
			f.system.past[0].Type = "container"
		}
		for name, path := range map[string]string{
			"container": "/containers/c/json", "containers": "/containers/json", "exec": "/exec/e/json",
			"image": "/images/i/json", "images": "/images/json", "network": "/networks/n", "networks": "/networks",
			"info": "/info", "version": "/version", "df": "/system/df", "event": "/events", "volume": "/volumes/v", "volumes": "/volumes",
		} {
			w := f.ask("GET", "/v1.51"+path, "")
			if w.Code != 200 {
				t.Errorf("%s: %d %s", path, w.Code, w.Body)
				continue
			}
			golden(t, filepath.Join("testdata", "answers", name+"."+kind+".json"), w.Body.Bytes())
		}
	}
}

type fakeVolumes struct{ volume *vtypes.Volume }

func (f *fakeVolumes) List(context.Context, filter.Args) (*vtypes.ListResponse, error) {
	return &vtypes.ListResponse{Volumes: []vtypes.Volume{*f.volume}}, nil
}
func (f *fakeVolumes) Inspect(context.Context, string) (*vtypes.Volume, error) { return f.volume, nil }
func (f *fakeVolumes) Create(context.Context, *vtypes.CreateRequest) (*vtypes.Volume, error) {
	return f.volume, nil
}
func (f *fakeVolumes) Remove(context.Context, string, bool) error { return nil }
func (f *fakeVolumes) Prune(context.Context, filter.Args) (*vtypes.PruneReport, error) {
	return &vtypes.PruneReport{}, nil
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	var indented bytes.Buffer
	if err := json.Indent(&indented, got, "", "\t"); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, indented.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, indented.Bytes()) {
		t.Errorf("%s changed: run with -update and look at the difference\n%s", path, &indented)
	}
}

// What clients of older versions get beside or instead of the newest.
func TestAnswersByVersion(t *testing.T) {
	for _, tt := range []struct {
		name, version, path string
		has, hasNot         []string
	}{
		{"top level address", "1.51", "/containers/c/json", []string{`"IPAddress":"10.0.0.2"`, `"HairpinMode":false`, `"MacAddress":"02:00:00:00:00:01"`, `"GraphDriver":{"Data":{`}, []string{`"Storage"`}},
		{"address asked for", "1.51", "/containers/c/json", []string{`"MacAddress":"02:00:00:00:00:09"`}, nil},
		{"manifest of containers", "1.47", "/containers/c/json", nil, []string{"ImageManifestDescriptor"}},
		{"annotations of containers", "1.45", "/containers/json", nil, []string{"Annotations", "Health\""}},
		{"virtual size", "1.43", "/images/json", []string{`"VirtualSize":7`}, []string{"Descriptor"}},
		{"no virtual size", "1.44", "/images/json", []string{`"Containers":-1`}, []string{"VirtualSize"}},
		{"containers of images", "1.51", "/images/json", []string{`"Containers":7`, "Descriptor"}, nil},
		{"virtual size of one", "1.43", "/images/i/json", []string{`"VirtualSize":7`, `"Parent":""`, `"DockerVersion":""`, `"AttachStdin":false`}, []string{"Descriptor", "Identity"}},
		{"one image", "1.50", "/images/i/json", []string{`"GraphDriver":{"Data":{`}, []string{"VirtualSize", "AttachStdin", "Identity"}},
		{"old info", "1.24", "/info", []string{`"BridgeNfIptables":false`, `"Expected":"text"`, `"AllowNondistributableArtifactsCIDRs":null`}, []string{"FirewallBackend", "DiscoveredDevices", "Containerd\"", "NRI"}},
		{"info", "1.51", "/info", []string{"FirewallBackend", "DiscoveredDevices", `"Containerd":`}, []string{"BridgeNfIptables", "Expected", "AllowNondistributable", "NRI"}},
		{"df before it had kinds", "1.41", "/system/df?type=image", []string{`"BuildCache":[]`, `"Volumes":[`, "VirtualSize"}, nil},
		{"df of images", "1.51", "/system/df?type=image", []string{`"Images":[`, `"BuildCache":null`}, []string{"VirtualSize"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture()
			f.containers.inspect = filled[ctypes.InspectResponse](true)
			f.containers.inspect.NetworkSettings.Networks["bridge"] = f.containers.inspect.NetworkSettings.Networks["text"]
			f.containers.list = []ctypes.Summary{*filled[ctypes.Summary](true)}
			f.images.inspect = filled[itypes.InspectResponse](true)
			f.images.list = []itypes.Summary{*filled[itypes.Summary](true)}
			f.images.inspect.Manifests, f.images.list[0].Manifests = nil, nil // they have descriptors of their own
			f.system.info = filled[system.Info](true)
			f.system.usage = filled[engine.Usage](true)
			body := f.ask("GET", "/v"+tt.version+tt.path, "").Body.String()
			for _, text := range tt.has {
				if !strings.Contains(body, text) {
					t.Errorf("%s is missing in %s", text, body)
				}
			}
			for _, text := range tt.hasNot {
				if strings.Contains(body, text) {
					t.Errorf("%s is in %s", text, body)
				}
			}
		})
	}
}

func TestOldAliases(t *testing.T) {
	f := newFixture()
	f.containers.inspect = &ctypes.InspectResponse{ID: "0123456789abcdef", Config: &ctypes.Config{Hostname: "h"},
		NetworkSettings: &ctypes.NetworkSettings{Networks: map[string]*network.EndpointSettings{"mine": {Aliases: []string{"a"}}, "bridge": {}}}}
	body := f.ask("GET", "/v1.44/containers/c/json", "").Body.String()
	if !strings.Contains(body, `"Aliases":["a","0123456789ab","h"]`) || strings.Count(body, "0123456789ab\"") != 1 {
		t.Errorf("got %s", body)
	}
}

func TestNoImagesAndNoTags(t *testing.T) {
	f := newFixture()
	if w := f.ask("GET", "/images/json", ""); w.Body.String() != "[]\n" {
		t.Errorf("no images: %q", w.Body)
	}
	if w := f.ask("GET", "/containers/json", ""); w.Body.String() != "[]\n" {
		t.Errorf("no containers: %q", w.Body)
	}
	f.images.list = []itypes.Summary{{}}
	if body := f.ask("GET", "/v1.42/images/json", "").Body.String(); !strings.Contains(body, `"RepoTags":["<none>:<none>"]`) {
		t.Errorf("1.42: %s", body)
	}
	f.images.list = []itypes.Summary{{}}
	if body := f.ask("GET", "/v1.43/images/json", "").Body.String(); !strings.Contains(body, `"RepoTags":[]`) {
		t.Errorf("1.43: %s", body)
	}
}
