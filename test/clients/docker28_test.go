package clients

import (
	"bytes"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	dregistry "github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
)

// The client of Docker 28, which most programs are built with, and which can be
// pinned to versions the newer one no longer speaks.
func TestDocker28(t *testing.T) {
	f := newFixture(t)
	for _, version := range []string{"", "1.24", "1.30", "1.40", "1.44"} {
		name, option := "negotiated", client.WithAPIVersionNegotiation()
		if version != "" {
			name, option = version, client.WithVersion(version)
		}
		t.Run(name, func(t *testing.T) {
			c, err := client.NewClientWithOpts(client.WithHost(f.Engine.Host()), option)
			must(t, 0, err)
			defer c.Close()
			u := user{t, c}
			u.runs()
			u.lists(version)
			u.tells()
		})
	}
	// Old versions ask for shared memory that others can join.
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(t, 0, err)
	same(t, "shared memory left mounted", strings.Contains(string(mounts), f.ExecRoot()+"/shm/"), false)
}

// user is a program with a client of Docker 28.
type user struct {
	*testing.T
	c *client.Client
}

func (u user) runs() {
	ctx := u.Context()
	r, err := u.c.ContainerCreate(ctx, &container.Config{Image: "busybox", Cmd: []string{"sh", "-c", "read x; echo got $x; echo err >&2; exit 3"},
		OpenStdin: true, StdinOnce: true, AttachStdin: true, Labels: map[string]string{"old": "1"}},
		&container.HostConfig{Binds: []string{"/etc:/e:ro"}, Resources: container.Resources{Memory: 64 << 20}}, nil, nil, "")
	must(u.T, 0, err)
	defer u.c.ContainerRemove(ctx, r.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
	a, err := u.c.ContainerAttach(ctx, r.ID, container.AttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
	must(u.T, 0, err)
	defer a.Close()
	must(u.T, 0, u.c.ContainerStart(ctx, r.ID, container.StartOptions{}))
	io.WriteString(a.Conn, "typed\n")
	var out, errOut bytes.Buffer
	_, err = stdcopy.StdCopy(&out, &errOut, a.Reader)
	same(u.T, "the streams", must(u.T, out.String()+"|"+errOut.String(), err), "got typed\n|err\n")
	results, failed := u.c.ContainerWait(ctx, r.ID, container.WaitConditionNotRunning)
	select {
	case w := <-results:
		same(u.T, "the exit code", w.StatusCode, 3)
	case err := <-failed:
		u.Fatal(err)
	}
	i, err := u.c.ContainerInspect(ctx, r.ID)
	must(u.T, 0, err)
	same(u.T, "inspect", i.State.ExitCode == 3 && i.HostConfig.Memory == 64<<20 && i.Mounts[0].Destination == "/e" && !i.Mounts[0].RW && i.Config.Labels["old"] == "1", true)
	must(u.T, 0, u.c.CopyToContainer(ctx, r.ID, "/tmp", archive(u.T, map[string]string{"a": "one"}), container.CopyToContainerOptions{}))
	from, stat, err := u.c.CopyFromContainer(ctx, r.ID, "/tmp/a")
	must(u.T, 0, err)
	defer from.Close()
	same(u.T, "the copy", stat.Size == 3 && unpack(u.T, from)["a"] == "one", true)
	logs, err := u.c.ContainerLogs(ctx, r.ID, container.LogsOptions{ShowStdout: true, Tail: "1"})
	must(u.T, 0, err)
	defer logs.Close()
	out.Reset()
	_, err = stdcopy.StdCopy(&out, &out, logs)
	same(u.T, "the log", must(u.T, strings.Contains("got typed\n", out.String()), err), true)
}

func (u user) lists(version string) {
	ctx := u.Context()
	r, err := u.c.ContainerCreate(ctx, &container.Config{Image: "busybox", Cmd: []string{"sleep", "1000"}}, &container.HostConfig{}, nil, nil, "listed"+version)
	must(u.T, 0, err)
	defer u.c.ContainerRemove(ctx, r.ID, container.RemoveOptions{Force: true})
	must(u.T, 0, u.c.ContainerStart(ctx, r.ID, container.StartOptions{}))
	list, err := u.c.ContainerList(ctx, container.ListOptions{Filters: filters.NewArgs(filters.Arg("name", "listed"), filters.Arg("status", "running"))})
	same(u.T, "the list", err == nil && len(list) == 1 && list[0].ID == r.ID && list[0].State == "running" && list[0].NetworkSettings.Networks["bridge"].IPAddress != "", true)
	e, err := u.c.ContainerExecCreate(ctx, r.ID, container.ExecOptions{Cmd: []string{"echo", "hi"}, AttachStdout: true})
	must(u.T, 0, err)
	a, err := u.c.ContainerExecAttach(ctx, e.ID, container.ExecAttachOptions{})
	must(u.T, 0, err)
	defer a.Close()
	var out bytes.Buffer
	_, err = stdcopy.StdCopy(&out, &out, a.Reader)
	same(u.T, "exec", must(u.T, out.String(), err), "hi\n")
	top, err := u.c.ContainerTop(ctx, r.ID, []string{"-o", "pid,args"})
	same(u.T, "top", err == nil && top.Processes[0][1] == "sleep 1000", true)
	timeout := 0
	must(u.T, 0, u.c.ContainerStop(ctx, r.ID, container.StopOptions{Timeout: &timeout}))
	_, err = u.c.ContainerInspect(ctx, "none")
	wantError(u.T, err, errdefs.IsNotFound, "No such container: none")
}

func (u user) tells() {
	ctx := u.Context()
	i, err := u.c.ImageInspect(ctx, "busybox")
	same(u.T, "the image", err == nil && slices.Contains(i.RepoTags, "busybox:latest") && i.Size > 500000, true)
	list, err := u.c.ImageList(ctx, image.ListOptions{Filters: filters.NewArgs(filters.Arg("reference", "busybox"))})
	same(u.T, "the images", err == nil && len(list) == 1 && list[0].ID == i.ID, true)
	h, err := u.c.ImageHistory(ctx, "busybox")
	same(u.T, "the history", err == nil && len(h) == 1, true)
	saved, err := u.c.ImageSave(ctx, []string{"busybox"})
	must(u.T, 0, err)
	loaded, err := u.c.ImageLoad(ctx, saved)
	must(u.T, 0, err)
	text, err := io.ReadAll(loaded.Body)
	same(u.T, "load", err == nil && loaded.JSON && strings.Contains(string(text), "busybox:latest"), true)
	loaded.Body.Close()
	saved.Close()
	v, err := u.c.VolumeCreate(ctx, volume.CreateOptions{Labels: map[string]string{"a": "b"}})
	must(u.T, 0, err)
	volumes, err := u.c.VolumeList(ctx, volume.ListOptions{Filters: filters.NewArgs(filters.Arg("label", "a=b"))})
	same(u.T, "the volumes", err == nil && len(volumes.Volumes) == 1 && volumes.Volumes[0].Name == v.Name, true)
	must(u.T, 0, u.c.VolumeRemove(ctx, v.Name, false))
	info, err := u.c.Info(ctx)
	same(u.T, "info", err == nil && info.Images == 1 && info.NCPU > 0 && info.OSType == "linux" && info.Driver != "", true)
	server, err := u.c.ServerVersion(ctx)
	same(u.T, "version", err == nil && server.Version != "" && server.MinAPIVersion == "1.24", true)
	_, err = u.c.RegistryLogin(ctx, dregistry.AuthConfig{ServerAddress: "127.0.0.1:1", Username: "u", Password: "p"})
	wantError(u.T, err, func(error) bool { return true }, "connection refused")
}
