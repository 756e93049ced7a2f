package client

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
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

// What is written without encoding/json is written as it would write it: of a
// request with every field set, not a byte differs.
func TestSparseWritesAsJSON(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		var all container.CreateRequest
		fill(reflect.ValueOf(&all).Elem(), r, true)
		got, err := json.Marshal(Sparse{&all})
		if err != nil {
			t.Fatal(err)
		}
		if want, err := json.Marshal(&all); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("seed %d (%v): encoding/json writes\n%s\nand this is\n%s", seed, err, want, got)
		}
		if direct, err := encode(Sparse{&all}); err != nil || !bytes.Equal(got, direct) {
			t.Fatalf("seed %d (%v): what is sent is\n%s\nand this is\n%s", seed, err, direct, got)
		}

		var some container.CreateRequest
		back, want := container.CreateRequest{Config: &container.Config{}}, container.CreateRequest{Config: &container.Config{}}
		fill(reflect.ValueOf(&some).Elem(), r, false)
		raw, err := encode(Sparse{&some})
		if err != nil {
			t.Fatal(err)
		}
		full, err := json.Marshal(&some)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, &back); err != nil {
			t.Fatalf("%v in %s", err, raw)
		}
		if err := json.Unmarshal(full, &want); err != nil {
			t.Fatal(err)
		}
		again, _ := json.Marshal(&back)
		if meant, _ := json.Marshal(&want); !bytes.Equal(again, meant) {
			t.Fatalf("seed %d:\n%s\nbecame\n%s", seed, meant, again)
		}
	}
}

// fill sets what v is made of: all of it, or some and some to what is empty.
func fill(v reflect.Value, r *rand.Rand, all bool) {
	if !all && r.IntN(3) == 0 {
		return
	}
	texts := []string{"a", "true", "<&>", "A=\"\\\n\x00\x7f", "ü ", "\xff\u2028", "/x y"}
	switch v.Interface().(type) {
	case network.Port:
		v.Set(reflect.ValueOf(network.MustParsePort([]string{"80/tcp", "53/udp", "9/sctp"}[r.IntN(3)])))
		return
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(255))})))
		return
	case network.HardwareAddr:
		v.Set(reflect.ValueOf(network.HardwareAddr{2, 0, 0, 0, 0, byte(r.IntN(255))}))
		return
	case netip.Prefix:
		v.Set(reflect.ValueOf(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(255)), 0}), 24)))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString(texts[r.IntN(len(texts))])
	case reflect.Int, reflect.Int64:
		v.SetInt(r.Int64N(1<<40) - 1<<39 | 1)
	case reflect.Uint8:
		v.SetUint(r.Uint64N(255) + 1)
	case reflect.Uint, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(r.Uint64N(1<<16-1) + 1)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), r, all)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), r, all)
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), r, all)
		}
	case reflect.Slice:
		n := r.IntN(3)
		if all {
			n++
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(v.Index(i), r, all)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		n := r.IntN(3)
		if all {
			n++
		}
		for range n {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(key, r, true)
			fill(value, r, all)
			v.SetMapIndex(key, value)
		}
	default:
		panic("no value for " + v.Type().String())
	}
}
