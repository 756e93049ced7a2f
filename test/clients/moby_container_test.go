package clients

import (
	"archive/tar"
	"bytes"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

// versions are negotiated, and old ones that users have pinned.
var versions = []string{"", "1.44", "1.51"}

func eachVersion(t *testing.T, test func(f *fixture)) {
	for _, v := range versions {
		name, options := "negotiated", []client.Opt(nil)
		if v != "" {
			name, options = v, []client.Opt{client.WithAPIVersion(v)}
		}
		t.Run(name, func(t *testing.T) { test(newFixture(t, options...)) })
	}
}

func ptr[T any](v T) *T { return &v }

// What is asked for at creation comes back from inspect as it was asked for, and
// is so inside.
func TestCreateWithEverything(t *testing.T) {
	eachVersion(t, func(f *fixture) {
		config := &container.Config{
			Image: "busybox", Cmd: []string{"sleep", "1000"}, Hostname: "h", Domainname: "example.org", User: "web", WorkingDir: "/tmp",
			Env: []string{"A=1", "B=x y"}, Labels: map[string]string{"l": "1"}, OpenStdin: true, StopSignal: "SIGINT", StopTimeout: ptr(3),
			ExposedPorts: network.PortSet{network.MustParsePort("80/tcp"): {}, network.MustParsePort("53/udp"): {}},
			Volumes:      map[string]struct{}{"/data": {}},
			Healthcheck:  &container.HealthConfig{Test: []string{"CMD-SHELL", "true"}, Interval: time.Minute, Timeout: time.Second, Retries: 2},
		}
		host := &container.HostConfig{
			Binds:         []string{"/etc:/host-etc:ro", "named:/named"},
			LogConfig:     container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "1m"}},
			PortBindings:  network.PortMap{network.MustParsePort("80/tcp"): {{HostIP: netip.MustParseAddr("127.0.0.1")}}},
			RestartPolicy: container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 3},
			CapAdd:        []string{"CAP_NET_ADMIN"}, CapDrop: []string{"CAP_MKNOD"},
			DNS: []netip.Addr{netip.MustParseAddr("127.0.0.9")}, DNSOptions: []string{"ndots:2"}, DNSSearch: []string{"example.org"},
			ExtraHosts: []string{"other:10.0.0.7"}, GroupAdd: []string{"50"}, IpcMode: "private", OomScoreAdj: 100,
			ReadonlyRootfs: true, SecurityOpt: []string{"no-new-privileges"}, Tmpfs: map[string]string{"/scratch": "size=1m,mode=1777"},
			ShmSize: 16 << 20, Sysctls: map[string]string{"net.ipv4.ip_unprivileged_port_start": "80"}, Init: ptr(true),
			Resources: container.Resources{
				CPUShares: 512, Memory: 64 << 20, MemoryReservation: 32 << 20, MemorySwap: 128 << 20, CPUPeriod: 100000, CPUQuota: 50000,
				CpusetCpus: "0", PidsLimit: ptr(int64(50)), DeviceCgroupRules: []string{"c 42:* rmw"},
				Devices: []container.DeviceMapping{{PathOnHost: "/dev/null", PathInContainer: "/dev/none", CgroupPermissions: "rw"}},
				Ulimits: []*container.Ulimit{{Name: "nofile", Soft: 100, Hard: 200}},
			},
			Mounts: []mount.Mount{
				{Type: mount.TypeVolume, Source: "mounted", Target: "/m", VolumeOptions: &mount.VolumeOptions{Labels: map[string]string{"v": "1"}}},
				{Type: mount.TypeTmpfs, Target: "/t", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 1 << 16, Mode: 0o700}},
				{Type: mount.TypeBind, Source: "/usr", Target: "/u", ReadOnly: true, BindOptions: &mount.BindOptions{Propagation: mount.PropagationRPrivate}},
			},
		}
		r, err := f.ContainerCreate(f.Context(), client.ContainerCreateOptions{Name: "all", Config: config, HostConfig: host})
		if err != nil || len(r.ID) != 64 {
			f.Fatal(r, err)
		}
		f.start("all")
		c := f.inspect("all")
		same(f.T, "the name", c.Name, "/all")
		same(f.T, "the id", c.ID, r.ID)
		same(f.T, "the path", c.Path+" "+strings.Join(c.Args, " "), "sleep 1000")
		for _, e := range config.Env {
			same(f.T, "variable "+e, slices.Contains(c.Config.Env, e), true)
		}
		// What the engine adds of its own is not compared.
		config.Env, c.Config.Env, c.Config.Entrypoint, c.Config.OnBuild = nil, nil, nil, nil
		sameJSON(f.T, "the configuration", c.Config, config)
		host.NetworkMode, host.CgroupnsMode, host.Runtime = c.HostConfig.NetworkMode, c.HostConfig.CgroupnsMode, c.HostConfig.Runtime
		host.MaskedPaths, host.ReadonlyPaths, host.OomKillDisable, host.Links = c.HostConfig.MaskedPaths, c.HostConfig.ReadonlyPaths, c.HostConfig.OomKillDisable, c.HostConfig.Links
		sameJSON(f.T, "the host configuration", c.HostConfig, host)
		same(f.T, "the network mode", c.HostConfig.NetworkMode.NetworkName(), "bridge")
		same(f.T, "running", c.State.Running && c.State.Status == "running" && c.State.Pid > 0 && c.State.Health != nil, true)
		same(f.T, "mounts", len(c.Mounts), 6)
		port := c.NetworkSettings.Ports[network.MustParsePort("80/tcp")]
		same(f.T, "the published port", len(port) == 1 && port[0].HostIP.String() == "127.0.0.1" && port[0].HostPort != "", true)
		same(f.T, "an exposed port", len(c.NetworkSettings.Ports[network.MustParsePort("53/udp")]), 0)
		endpoint := c.NetworkSettings.Networks["bridge"]
		same(f.T, "the endpoint", endpoint.IPAddress.IsValid() && endpoint.Gateway.IsValid() && endpoint.IPPrefixLen > 0 && len(endpoint.MacAddress) == 6, true)
		out := f.exec("all", "id -u; id -g; id -G; pwd; hostname; echo $A $B; ulimit -n; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/1/oom_score_adj; grep -c other /etc/hosts; readlink /proc/1/exe >/dev/null; ls /host-etc/passwd; touch /u/x 2>&1; touch /named/x 2>&1")
		same(f.T, "inside", out, "33\n34\n34 50\n/tmp\nh\n1 x y\n100\n80\n100\n1\n/host-etc/passwd\ntouch: /u/x: Read-only file system\ntouch: /named/x: Permission denied\n")
	})
}

// A life, and what each step of it answers.
func TestLife(t *testing.T) {
	eachVersion(t, func(f *fixture) {
		ctx := f.Context()
		id := f.create("life", container.Config{Cmd: []string{"sh", "-c", "trap 'exit 7' TERM; trap 'echo usr1' USR1; echo ready; while :; do sleep 0.05; done"}}, container.HostConfig{})
		_, err := f.ContainerKill(ctx, id, client.ContainerKillOptions{})
		wantError(f.T, err, errdefs.IsConflict, "is not running")
		next := f.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
		f.start(id)
		f.start(id) // not modified, which is no error
		f.waitLog(id, "ready")
		_, err = f.ContainerPause(ctx, id, client.ContainerPauseOptions{})
		must(f.T, 0, err)
		same(f.T, "paused", f.inspect(id).State.Paused, true)
		_, err = f.ContainerPause(ctx, id, client.ContainerPauseOptions{})
		wantError(f.T, err, errdefs.IsConflict, "already paused")
		_, err = f.ContainerUnpause(ctx, id, client.ContainerUnpauseOptions{})
		must(f.T, 0, err)
		_, err = f.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: "SIGUSR1"})
		must(f.T, 0, err)
		f.waitLog(id, "usr1")
		_, err = f.ContainerRename(ctx, id, client.ContainerRenameOptions{NewName: "renamed"})
		must(f.T, 0, err)
		same(f.T, "the new name", f.inspect("renamed").ID, id)

		top, err := f.ContainerTop(ctx, id, client.ContainerTopOptions{Arguments: []string{"-o", "pid,args"}})
		must(f.T, 0, err)
		same(f.T, "the titles", strings.Join(top.Titles, " "), "PID COMMAND")
		same(f.T, "the processes", len(top.Processes) >= 1 && len(top.Processes[0]) == 2, true)

		u, err := f.ContainerUpdate(ctx, id, client.ContainerUpdateOptions{
			Resources: &container.Resources{Memory: 100 << 20, MemorySwap: 200 << 20, CPUShares: 256}, RestartPolicy: &container.RestartPolicy{Name: "no"}})
		must(f.T, 0, err)
		same(f.T, "warnings", len(u.Warnings), 0)
		same(f.T, "the new limit", f.inspect(id).HostConfig.Memory, 100<<20)

		f.exec(id, "touch /new; rm /etc/group; echo x >>/etc/passwd")
		diff, err := f.ContainerDiff(ctx, id, client.ContainerDiffOptions{})
		must(f.T, 0, err)
		for _, want := range []container.FilesystemChange{{Kind: 1, Path: "/new"}, {Kind: 2, Path: "/etc/group"}, {Kind: 0, Path: "/etc/passwd"}, {Kind: 0, Path: "/etc"}} {
			same(f.T, "a change of "+want.Path, slices.Contains(diff.Changes, want), true)
		}

		_, err = f.ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: ptr(20)})
		must(f.T, 0, err)
		same(f.T, "the exit code", f.result(next), 7)
		same(f.T, "the exit code again", f.wait(id, container.WaitConditionNotRunning), 7)
		state := f.inspect(id).State
		same(f.T, "the state", state.ExitCode == 7 && !state.Running && state.Status == "exited" && state.Pid == 0 && !state.OOMKilled && state.FinishedAt > state.StartedAt, true)
		_, err = f.ContainerRestart(ctx, id, client.ContainerRestartOptions{Timeout: ptr(0), Signal: "SIGKILL"})
		must(f.T, 0, err)
		_, err = f.ContainerRemove(ctx, id, client.ContainerRemoveOptions{})
		wantError(f.T, err, errdefs.IsConflict, "container is running")
		removed := f.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionRemoved})
		_, err = f.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		must(f.T, 0, err)
		same(f.T, "the exit code of a removed one", f.result(removed), 137)
		_, err = f.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		wantError(f.T, err, errdefs.IsNotFound, "No such container: "+id)
	})
}

// Every filter finds what it should and nothing else.
func TestListFilters(t *testing.T) {
	f := newFixture(t)
	first := f.create("first", container.Config{Cmd: []string{"sh", "-c", "exit 3"}, Labels: map[string]string{"color": "red", "n": ""}}, container.HostConfig{Binds: []string{"vol:/v"}})
	f.start(first)
	f.wait(first, container.WaitConditionNotRunning)
	second := f.create("second", container.Config{Cmd: []string{"sleep", "1000"}, Labels: map[string]string{"color": "blue"},
		ExposedPorts: network.PortSet{network.MustParsePort("8080/tcp"): {}}}, container.HostConfig{
		PortBindings: network.PortMap{network.MustParsePort("8080/tcp"): {{HostIP: netip.MustParseAddr("127.0.0.1")}}}})
	f.start(second)
	third := f.create("third", container.Config{}, container.HostConfig{NetworkMode: "none"})
	port := f.inspect(second).NetworkSettings.Ports[network.MustParsePort("8080/tcp")][0].HostPort
	for _, tt := range []struct{ key, value, want string }{
		{"name", "con", "second"}, {"name", "^/?first$", "first"}, {"id", second[:12], "second"}, {"label", "color", "second first"},
		{"label", "color=red", "first"}, {"status", "exited", "first"}, {"status", "created", "third"}, {"status", "running", "second"},
		{"exited", "3", "first"}, {"exited", "0", ""}, {"ancestor", "busybox", "third second first"}, {"before", "second", "first"}, {"since", second, "third"},
		{"volume", "vol", "first"}, {"volume", "/v", "first"}, {"expose", "8080/tcp", "second"}, {"publish", port, "second"}, {"publish", "8080", ""}, {"network", "none", "third"},
		{"is-task", "false", "third second first"}, {"health", "none", "third second first"},
	} {
		list, err := f.ContainerList(f.Context(), client.ContainerListOptions{All: true, Filters: make(client.Filters).Add(tt.key, tt.value)})
		must(t, 0, err)
		var names []string
		for _, c := range list.Items {
			names = append(names, c.Names[0][1:])
		}
		same(t, tt.key+"="+tt.value, strings.Join(names, " "), tt.want)
	}
	_, err := f.ContainerList(f.Context(), client.ContainerListOptions{Filters: make(client.Filters).Add("odd", "1")})
	wantError(t, err, errdefs.IsInvalidArgument, "invalid filter")
	list, err := f.ContainerList(f.Context(), client.ContainerListOptions{Size: true})
	if err != nil || len(list.Items) != 1 {
		t.Fatal(list, err)
	}
	c := list.Items[0]
	same(t, "the summary", c.ID == second && c.Image == "busybox" && c.Command == "sleep 1000" && c.State == "running" && strings.HasPrefix(c.Status, "Up ") &&
		c.SizeRootFs > 500000 && c.Labels["color"] == "blue" && c.HostConfig.NetworkMode == "bridge" && strings.HasPrefix(c.ImageID, "sha256:") && c.Created > 0, true)
	same(t, "the port", len(c.Ports) == 1 && c.Ports[0].PrivatePort == 8080 && c.Ports[0].PublicPort > 0 && c.Ports[0].Type == "tcp" && c.Ports[0].IP.String() == "127.0.0.1", true)
	limited, err := f.ContainerList(f.Context(), client.ContainerListOptions{Limit: 1})
	same(t, "the newest", err == nil && len(limited.Items) == 1 && limited.Items[0].ID == third, true)
	pruned, err := f.ContainerPrune(f.Context(), client.ContainerPruneOptions{Filters: make(client.Filters).Add("label", "color=red")})
	same(t, "the pruned", err == nil && slices.Equal(pruned.Report.ContainersDeleted, []string{first}), true)
}

func archive(t testing.TB, files map[string]string) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range files {
		must(t, 0, w.WriteHeader(&tar.Header{Name: name, Mode: 0o640, Size: int64(len(content)), Uid: 33, Gid: 34}))
		_, err := io.WriteString(w, content)
		must(t, 0, err)
	}
	must(t, 0, w.Close())
	return &b
}

// unpack returns the regular files of an archive.
func unpack(t testing.TB, r io.Reader) map[string]string {
	t.Helper()
	files := map[string]string{}
	for a := tar.NewReader(r); ; {
		h, err := a.Next()
		if err == io.EOF {
			return files
		}
		must(t, 0, err)
		if h.Typeflag == tar.TypeReg {
			content, err := io.ReadAll(a)
			must(t, 0, err)
			files[h.Name] = string(content)
		}
	}
}

func TestCopyAndExport(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	for _, running := range []bool{false, true} {
		id := f.create("", container.Config{Cmd: []string{"sleep", "1000"}}, container.HostConfig{})
		if running {
			f.start(id)
		}
		_, err := f.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: "/tmp", Content: archive(t, map[string]string{"a": "one", "d/b": "two"}), CopyUIDGID: true})
		must(t, 0, err)
		stat, err := f.ContainerStatPath(ctx, id, client.ContainerStatPathOptions{Path: "/tmp/a"})
		same(t, "the file", err == nil && stat.Stat.Name == "a" && stat.Stat.Size == 3 && stat.Stat.Mode == 0o640 && stat.Stat.LinkTarget == "", true)
		from, err := f.CopyFromContainer(ctx, id, client.CopyFromContainerOptions{SourcePath: "/tmp/d"})
		must(t, 0, err)
		same(t, "the directory", from.Stat.Name == "d" && from.Stat.Mode.IsDir(), true)
		same(t, "what is in it", unpack(t, from.Content)["d/b"], "two")
		from.Content.Close()
		_, err = f.CopyFromContainer(ctx, id, client.CopyFromContainerOptions{SourcePath: "/none"})
		wantError(t, err, errdefs.IsNotFound, "Could not find the file /none in container")
		_, err = f.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: "/", Content: archive(t, map[string]string{"etc": "a file"})})
		wantError(t, err, errdefs.IsInvalidArgument, "")
		exported, err := f.ContainerExport(ctx, id, client.ContainerExportOptions{})
		must(t, 0, err)
		same(t, "the exported file", unpack(t, exported)["tmp/a"], "one")
		exported.Close()
	}
}
