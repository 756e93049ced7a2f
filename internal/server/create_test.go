package server

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	ctypes "github.com/moby/moby/api/types/container"

	"github.com/gantry-containers/gantry/internal/container"
)

func TestCreateBadInput(t *testing.T) {
	for _, tt := range []struct {
		name, body, contentType string
		status                  int
		message                 string
	}{
		{"no body", "", "", 400, "invalid JSON: got EOF while reading request body"},
		{"no config", "{}", "application/json", 400, "config cannot be empty in order to create a container"},
		{"null", "null", "application/json", 400, "config cannot be empty in order to create a container"},
		{"only a host config", `{"HostConfig":{}}`, "application/json", 400, "config cannot be empty in order to create a container"},
		{"truncated", `{"Image":"x"`, "application/json", 400, "invalid JSON: unexpected EOF"},
		{"two documents", `{"Image":"x"}{}`, "application/json", 400, "unexpected content after JSON"},
		{"no JSON", "hello", "application/json", 400, "invalid JSON: invalid character 'h' looking for beginning of value"},
		{"type", `{"Image":1}`, "application/json", 400, "invalid JSON: json: cannot unmarshal number into Go struct field createRequest.Config.Image of type string"},
		{"port", `{"Image":"x","ExposedPorts":{"a/tcp":{}}}`, "application/json", 400, "invalid JSON: invalid port 'a': invalid syntax"},
		{"content type", `{"Image":"x"}`, "text/plain", 400, "unsupported Content-Type header (text/plain): must be 'application/json'"},
		{"no content type", `{"Image":"x"}`, "none", 400, "malformed Content-Type header (): mime: no media type"},
		{"huge", `{"Image":"` + strings.Repeat("x", maxJSONBody) + `"}`, "application/json", 413, "http: request body too large"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			header := []string{"Content-Type", tt.contentType}
			if tt.contentType == "none" {
				header[1] = ""
			}
			f := newFixture()
			w := f.ask("POST", "/containers/create", tt.body, header...)
			wantError(t, w, tt.status, tt.message)
			if f.containers.created != nil {
				t.Error("the manager was called")
			}
		})
	}
}

func TestCreate(t *testing.T) {
	f := newFixture()
	body := `{"Image":"x","Cmd":"ls","Entrypoint":["sh","-c"],"Unknown":{"a":1},
		"HostConfig":{"CapAdd":"NET_ADMIN","PidsLimit":-1,"PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}]},"Dns":["1.1.1.1"]}}`
	w := f.ask("POST", "/containers/create?name=web&platform=linux/arm64", body)
	if w.Code != 201 || w.Body.String() != `{"Id":"abc","Warnings":[]}`+"\n" {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	o := f.containers.created
	if o.Name != "web" || o.Platform == nil || o.Platform.Architecture != "arm64" {
		t.Errorf("name %q, platform %v", o.Name, o.Platform)
	}
	if !slices.Equal(o.Config.Cmd, []string{"ls"}) || !slices.Equal(o.Config.Entrypoint, []string{"sh", "-c"}) {
		t.Errorf("command %q %q", o.Config.Entrypoint, o.Config.Cmd)
	}
	if !slices.Equal(o.HostConfig.CapAdd, []string{"NET_ADMIN"}) || o.HostConfig.PidsLimit != nil {
		t.Errorf("capabilities %q, pids %v", o.HostConfig.CapAdd, o.HostConfig.PidsLimit)
	}
	if o.HostConfig.NetworkMode != "bridge" || len(o.HostConfig.PortBindings) != 1 {
		t.Errorf("network %q, ports %v", o.HostConfig.NetworkMode, o.HostConfig.PortBindings)
	}
	if w := f.ask("POST", "/containers/create?platform=linux/a/b/c", `{"Image":"x"}`); w.Code != 400 {
		t.Errorf("a bad platform: %d %s", w.Code, w.Body)
	}
}

// What an older client sends has to mean what it meant in its time.
func TestCreateByVersion(t *testing.T) {
	for _, tt := range []struct {
		name, version, body string
		check               func(*container.CreateOptions) any
		want                any
	}{
		{"ipc was shareable", "1.39", `{"Image":"x"}`, func(o *container.CreateOptions) any { return o.HostConfig.IpcMode }, ctypes.IPCModeShareable},
		{"ipc is the daemon's default", "1.40", `{"Image":"x"}`, func(o *container.CreateOptions) any { return o.HostConfig.IpcMode }, ctypes.IpcMode("")},
		{"auto remove was the client's", "1.24", `{"Image":"x","HostConfig":{"AutoRemove":true}}`, func(o *container.CreateOptions) any { return o.HostConfig.AutoRemove }, false},
		{"console size unknown", "1.41", `{"Image":"x","HostConfig":{"ConsoleSize":[1,2]}}`, func(o *container.CreateOptions) any { return o.HostConfig.ConsoleSize }, [2]uint{}},
		{"console size", "1.42", `{"Image":"x","HostConfig":{"ConsoleSize":[1,2]}}`, func(o *container.CreateOptions) any { return o.HostConfig.ConsoleSize }, [2]uint{1, 2}},
		{"annotations unknown", "1.42", `{"Image":"x","HostConfig":{"Annotations":{"a":"b"}}}`, func(o *container.CreateOptions) any { return len(o.HostConfig.Annotations) }, 0},
		{"start interval unknown", "1.43", `{"Image":"x","Healthcheck":{"StartInterval":5}}`, func(o *container.CreateOptions) any { return int64(o.Config.Healthcheck.StartInterval) }, int64(0)},
		{"read-only was not recursive", "1.43", `{"Image":"x","HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true}]}}`,
			func(o *container.CreateOptions) any { return o.HostConfig.Mounts[0].BindOptions.ReadOnlyNonRecursive }, true},
		{"nor was a short bind", "1.43", `{"Image":"x"}`, func(o *container.CreateOptions) any { return o.DefaultReadOnlyNonRecursive }, true},
		{"a short bind is recursive", "1.44", `{"Image":"x"}`, func(o *container.CreateOptions) any { return o.DefaultReadOnlyNonRecursive }, false},
		{"foreign options ignored", "1.41", `{"Image":"x","HostConfig":{"Mounts":[{"Type":"bind","VolumeOptions":{}}]}}`,
			func(o *container.CreateOptions) any { return o.HostConfig.Mounts[0].VolumeOptions == nil }, true},
		{"address moves to the network", "1.43", `{"Image":"x","MacAddress":"02:00:00:00:00:01"}`,
			func(o *container.CreateOptions) any {
				return o.NetworkingConfig.EndpointsConfig["bridge"].MacAddress.String()
			}, "02:00:00:00:00:01"},
		{"address of the endpoint unknown", "1.43", `{"Image":"x","NetworkingConfig":{"EndpointsConfig":{"bridge":{"MacAddress":"02:00:00:00:00:01"}}}}`,
			func(o *container.CreateOptions) any {
				return o.NetworkingConfig.EndpointsConfig["bridge"].MacAddress.String()
			}, ""},
		{"the default network", "1.51", `{"Image":"x","HostConfig":{"NetworkMode":"default"},"NetworkingConfig":{"EndpointsConfig":{"default":null}}}`,
			func(o *container.CreateOptions) any {
				return o.HostConfig.NetworkMode == "bridge" && o.NetworkingConfig.EndpointsConfig["bridge"] != nil
			}, true},
		{"sysctls of an interface", "1.47", `{"Image":"x","HostConfig":{"Sysctls":{"net.ipv4.conf.eth0.forwarding":"1","kernel.x":"2"}}}`,
			func(o *container.CreateOptions) any {
				return []any{o.HostConfig.Sysctls, o.NetworkingConfig.EndpointsConfig["bridge"].DriverOpts}
			}, []any{map[string]string{"kernel.x": "2"}, map[string]string{endpointSysctls: "net.ipv4.conf.IFNAME.forwarding=1"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture()
			if w := f.ask("POST", "/v"+tt.version+"/containers/create", tt.body); w.Code != 201 {
				t.Fatalf("got %d %s", w.Code, w.Body)
			}
			if got := tt.check(f.containers.created); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestCreateRefusedByVersion(t *testing.T) {
	for _, tt := range []struct{ version, body, message string }{
		{"1.42", `{"Image":"x","HostConfig":{"Mounts":[{"Type":"bind","TmpfsOptions":{}}]}}`, `TmpfsOptions must not be specified on mount type "bind"`},
		{"1.43", `{"Image":"x","NetworkingConfig":{"EndpointsConfig":{"b":{},"a":{}}}}`, "Container cannot be created with multiple network endpoints: a, b"},
		{"1.43", `{"Image":"x","HostConfig":{"NetworkMode":"host"},"MacAddress":"02:00:00:00:00:01"}`, "conflicting options: mac-address and the network mode"},
		{"1.44", `{"Image":"x","HostConfig":{"Mounts":[{"Type":"volume","VolumeOptions":{"Subpath":"a"}}]}}`, "VolumeOptions.Subpath needs API v1.45 or newer"},
		{"1.47", `{"Image":"x","HostConfig":{"Mounts":[{"Type":"image"}]}}`, `Mount type "Image" needs API v1.48 or newer`},
		{"1.48", `{"Image":"x","HostConfig":{"Sysctls":{"net.ipv4.conf.eth0.forwarding":"1"}}}`,
			`interface specific sysctl setting "net.ipv4.conf.eth0.forwarding" must be supplied using driver option 'com.docker.network.endpoint.sysctls'`},
		{"1.40", `{"Image":"x","HostConfig":{"Capabilities":["x"]}}`, "HostConfig.Capabilities is not supported; use CapAdd and CapDrop"},
	} {
		wantError(t, newFixture().ask("POST", "/v"+tt.version+"/containers/create", tt.body), 400, tt.message)
	}
}

func TestCreateWarnings(t *testing.T) {
	w := newFixture().ask("POST", "/v1.44/containers/create", `{"Image":"x","MacAddress":"02:00:00:00:00:01"}`)
	if w.Code != 201 || !strings.Contains(w.Body.String(), "MacAddress field is now deprecated") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

// FuzzCreate: nothing a client sends may crash the daemon, and what is accepted
// is complete.
func FuzzCreate(f *testing.F) {
	for _, seed := range []string{
		`{"Image":"x","Cmd":["a"],"HostConfig":{"NetworkMode":"default","Mounts":[{"Type":"bind","BindOptions":null}]}}`,
		`{"Image":"x","MacAddress":"02:00:00:00:00:01","NetworkingConfig":{"EndpointsConfig":{"bridge":null,"x":{}}}}`,
		`{"Healthcheck":{"Test":["CMD"]},"HostConfig":{"Sysctls":{"net.ipv4.conf.eth0.x":"1"},"PidsLimit":0}}`,
		`{"Cmd":null,"Entrypoint":"sh","HostConfig":null,"ExposedPorts":{"80":{}}}`,
		`{"hostconfig":{"capadd":[],"CapAdd":"x"},"image":"x"}`,
	} {
		f.Add([]byte(seed), 51)
	}
	f.Fuzz(func(t *testing.T, data []byte, minor int) {
		version := apiVersion(100 + 24 + (minor&0xffff)%28)
		o, mac, err := decodeCreate(strings.NewReader(string(data)), version)
		if err != nil {
			return
		}
		if o.Config == nil || o.HostConfig == nil || o.NetworkingConfig == nil || o.Config.Volumes == nil {
			t.Fatal("something is missing")
		}
		if _, err := adaptCreate(o, mac, version); err == nil && o.HostConfig.NetworkMode == "" {
			t.Fatal("no network mode")
		}
	})
}
