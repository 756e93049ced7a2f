package server

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	ctypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	itypes "github.com/moby/moby/api/types/image"
	ntypes "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"

	"github.com/gantry-containers/gantry/internal/container"
	"github.com/gantry-containers/gantry/internal/engine"
	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/filter"
	"github.com/gantry-containers/gantry/internal/image"
	"github.com/gantry-containers/gantry/internal/logs"
)

// The managers of these tests answer what a test tells them to, and panic when
// they are called for anything else.

type fakeContainers struct {
	containers
	created *container.CreateOptions
	run     func(*container.CreateOptions, *container.RunOptions) error
	inspect *ctypes.InspectResponse
	list    []ctypes.Summary
	listed  container.ListOptions
	exit    chan ctypes.WaitResponse
	logs    []*logs.Message
	logsEnd error
	follow  chan struct{} // logs wait for it when they are followed
	tty     bool
	err     error
	attach  func(container.Hijack) error
	exec    *ctypes.ExecInspectResponse
	timeout *int
	signal  string
	export  func(io.Writer) error
}

func (f *fakeContainers) Export(_ context.Context, _ string, w io.Writer) error { return f.export(w) }

func (f *fakeContainers) Create(_ context.Context, o *container.CreateOptions) (ctypes.CreateResponse, error) {
	f.created = o
	return ctypes.CreateResponse{ID: "abc"}, f.err
}

func (f *fakeContainers) Run(_ context.Context, o *container.CreateOptions, r *container.RunOptions) error {
	return f.run(o, r)
}

func (f *fakeContainers) Start(context.Context, string) error { return f.err }

func (f *fakeContainers) Stop(_ context.Context, _ string, o container.StopOptions) error {
	f.timeout, f.signal = o.Timeout, o.Signal
	return f.err
}

func (f *fakeContainers) Resize(context.Context, string, uint, uint) error { return f.err }

func (f *fakeContainers) AskedMAC(string) ntypes.HardwareAddr {
	return ntypes.HardwareAddr{2, 0, 0, 0, 0, 9}
}

func (f *fakeContainers) Inspect(_ context.Context, ref string, _ bool) (*ctypes.InspectResponse, error) {
	if f.inspect == nil {
		return nil, errs.NotFound("No such container: %s", ref)
	}
	return f.inspect, nil
}

func (f *fakeContainers) List(_ context.Context, o container.ListOptions) ([]ctypes.Summary, error) {
	f.listed = o
	return f.list, f.err
}

func (f *fakeContainers) Wait(context.Context, string, ctypes.WaitCondition) (<-chan ctypes.WaitResponse, error) {
	return f.exit, f.err
}

func (f *fakeContainers) Tty(string) (bool, error) { return f.tty, f.err }

func (f *fakeContainers) Logs(ctx context.Context, _ string, o container.LogsOptions, send func(*logs.Message) error) error {
	for _, m := range f.logs {
		if err := send(m); err != nil {
			return err
		}
	}
	if o.Follow && f.follow != nil {
		select {
		case <-f.follow:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return f.logsEnd
}

func (f *fakeContainers) Stats(_ context.Context, _ string, _ container.StatsOptions, send func(*ctypes.StatsResponse) error) error {
	if f.err != nil {
		return f.err
	}
	return send(&ctypes.StatsResponse{ID: "abc", OSType: "linux"})
}

func (f *fakeContainers) Attach(_ context.Context, _ string, _ container.AttachOptions, h container.Hijack) error {
	return f.attach(h)
}

func (f *fakeContainers) ExecStart(_ context.Context, _ string, o container.ExecStartOptions, h container.Hijack) error {
	if o.Detach {
		return f.err
	}
	return f.attach(h)
}

func (f *fakeContainers) ExecInspect(_ context.Context, id string) (*ctypes.ExecInspectResponse, error) {
	if f.exec == nil {
		return nil, errs.NotFound("No such exec instance: %s", id)
	}
	return f.exec, nil
}

func (f *fakeContainers) StatPath(_ context.Context, _, path string) (*ctypes.PathStat, error) {
	return &ctypes.PathStat{Name: path, Size: 7, Mtime: time.Unix(1, 0).UTC()}, f.err
}

func (f *fakeContainers) CopyFrom(ctx context.Context, ref, path string, begin func(*ctypes.PathStat) io.Writer) error {
	if f.err != nil {
		return f.err
	}
	stat, _ := f.StatPath(ctx, ref, path)
	_, err := io.WriteString(begin(stat), "tar")
	return err
}

type fakeImages struct {
	images
	inspect *itypes.InspectResponse
	list    []itypes.Summary
	pulled  string
	pull    func(image.PullOptions) error
	loaded  string
	tagged  [3]string
}

func (f *fakeImages) Inspect(context.Context, string, image.InspectOptions) (*itypes.InspectResponse, error) {
	return f.inspect, nil
}

func (f *fakeImages) Parent(string) string { return "" }

func (f *fakeImages) List(context.Context, image.ListOptions) ([]itypes.Summary, error) {
	return f.list, nil
}

func (f *fakeImages) Pull(_ context.Context, ref string, o image.PullOptions) error {
	f.pulled = ref
	return f.pull(o)
}

func (f *fakeImages) Load(_ context.Context, r io.Reader, _ image.LoadOptions) error {
	data, err := io.ReadAll(r)
	f.loaded = string(data)
	return err
}

func (f *fakeImages) Tag(src, repo, tag string) error {
	f.tagged = [3]string{src, repo, tag}
	return nil
}

type fakeNetworks struct {
	networks
	inspect *ntypes.Inspect
}

func (f *fakeNetworks) List(context.Context, filter.Args) ([]ntypes.Summary, error) {
	return []ntypes.Summary{{Network: f.inspect.Network}}, nil
}

func (f *fakeNetworks) Inspect(context.Context, string) (*ntypes.Inspect, error) {
	return f.inspect, nil
}

type fakeSystem struct {
	systemInfo
	info   *system.Info
	usage  *engine.Usage
	past   []events.Message
	events chan events.Message
}

func (f *fakeSystem) Neighbours() []string { return nil }

func (f *fakeSystem) Info(context.Context) (*system.Info, error) { return f.info, nil }

func (f *fakeSystem) Version(context.Context) (*system.VersionResponse, error) {
	return &system.VersionResponse{Platform: system.PlatformInfo{Name: "Gantry"}, Version: "1.0", Os: "linux", Arch: "amd64"}, nil
}

func (f *fakeSystem) DiskUsage(context.Context, bool, bool, bool) (*engine.Usage, error) {
	return f.usage, nil
}

func (f *fakeSystem) Subscribe(time.Time, filter.Args) ([]events.Message, <-chan events.Message, func()) {
	return f.past, f.events, func() {}
}

type fixture struct {
	*Server
	containers *fakeContainers
	images     *fakeImages
	networks   *fakeNetworks
	system     *fakeSystem
	registries *fakeRegistries
}

func newFixture() *fixture {
	f := &fixture{containers: &fakeContainers{}, images: &fakeImages{}, networks: &fakeNetworks{}, system: &fakeSystem{}, registries: &fakeRegistries{}}
	f.Server = newServer(backend{containers: f.containers, images: f.images, networks: f.networks, system: f.system, registries: f.registries},
		Options{Version: "1.0"})
	return f
}

// ask makes a request; a body that is not empty is sent as JSON.
func (f *fixture) ask(method, target, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
		if header[i+1] == "" {
			r.Header.Del(header[i])
		}
	}
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w
}

// listen serves on a socket, for what needs a connection.
func (f *fixture) listen(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(f.Server)
	t.Cleanup(s.Close)
	return s
}

func wantError(t *testing.T, w *httptest.ResponseRecorder, status int, message string) {
	t.Helper()
	var answer map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("the answer is no JSON: %v: %q", err, w.Body)
	}
	if w.Code != status || answer["message"] != message || len(answer) != 1 {
		t.Errorf("got %d %q, want %d %q", w.Code, answer, status, message)
	}
	if ct := w.Header().Get("Content-Type"); ct != "application/json" {
		t.Errorf("Content-Type is %q", ct)
	}
}

func decodeAnswer(t *testing.T, w *httptest.ResponseRecorder) map[string]any {
	t.Helper()
	if w.Code != http.StatusOK {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	var v map[string]any
	if err := json.NewDecoder(bytes.NewReader(w.Body.Bytes())).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}
