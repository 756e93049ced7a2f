package client

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
)

// What the engine reads is what was meant, whatever is left out.
func TestSparseLosesNothing(t *testing.T) {
	off, swappiness, pids := false, int64(0), int64(7)
	port := network.MustParsePort("80/tcp")
	for _, want := range []*container.CreateRequest{
		{Config: &container.Config{Image: "busybox", Cmd: []string{"true"}}, HostConfig: &container.HostConfig{}},
		{
			Config: &container.Config{
				Image: "<&>", Env: []string{"A=\"\n"}, Labels: map[string]string{}, Entrypoint: []string{""}, Tty: true,
				ExposedPorts: network.PortSet{port: {}},
				Healthcheck:  &container.HealthConfig{Test: []string{"NONE"}, Interval: time.Second},
			},
			HostConfig: &container.HostConfig{
				Init: &off, ConsoleSize: [2]uint{24, 80}, DNS: []netip.Addr{netip.MustParseAddr("1.1.1.1")},
				RestartPolicy: container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 3},
				PortBindings:  network.PortMap{port: {{HostIP: netip.MustParseAddr("::1"), HostPort: "8080"}}},
				MaskedPaths:   []string{},
				Mounts:        []mount.Mount{{Type: mount.TypeTmpfs, Target: "/t", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 9}}},
				Resources:     container.Resources{Memory: 1 << 20, MemorySwappiness: &swappiness, PidsLimit: &pids},
			},
			NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
				"bridge": {Aliases: []string{"a"}, MacAddress: network.HardwareAddr{2, 0, 0, 0, 0, 1}},
			}},
		},
	} {
		raw, err := json.Marshal(Sparse{want})
		if err != nil {
			t.Fatal(err)
		}
		full, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got, expected container.CreateRequest
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Fatalf("%v in %s", err, raw)
		}
		if err := json.Unmarshal(full, &expected); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, expected) {
			t.Errorf("%s\nbecame\n%s", full, raw)
		}
		if len(raw) >= len(full) {
			t.Errorf("nothing is left out: %s", raw)
		}
	}
}
