package clients

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/enginetest"
)

func TestImages(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	i, err := f.ImageInspect(ctx, "busybox")
	must(t, 0, err)
	same(t, "the image", i.Os == "linux" && i.Architecture != "" && slices.Equal(i.Config.Cmd, []string{"sh"}) && len(i.RootFS.Layers) == 1 && i.Size > 500000 && i.Created != "", true)
	_, err = f.ImageTag(ctx, client.ImageTagOptions{Source: "busybox", Target: "clients/other:v1"})
	must(t, 0, err)
	for filter, want := range map[string]int{"reference=clients/*": 1, "reference=none": 0, "dangling=true": 0, "dangling=false": 1, "label=none": 0, "before=busybox": 0, "since=busybox": 0} {
		key, value, _ := strings.Cut(filter, "=")
		list, err := f.ImageList(ctx, client.ImageListOptions{Filters: make(client.Filters).Add(key, value)})
		must(t, 0, err)
		same(t, "images with "+filter, len(list.Items), want)
		if want == 1 {
			same(t, "the summary", list.Items[0].ID == i.ID && list.Items[0].Size > 500000 && list.Items[0].Created > 0 && slices.Contains(list.Items[0].RepoTags, "clients/other:v1"), true)
		}
	}
	h, err := f.ImageHistory(ctx, "busybox")
	same(t, "the history", err == nil && len(h.Items) == 1 && h.Items[0].ID == i.ID && h.Items[0].Size > 500000, true)
	saved, err := f.ImageSave(ctx, []string{"clients/other:v1"})
	must(t, 0, err)
	archive, err := io.ReadAll(saved)
	must(t, 0, err)
	saved.Close()
	removed, err := f.ImageRemove(ctx, "clients/other:v1", client.ImageRemoveOptions{PruneChildren: true})
	same(t, "what was removed", err == nil && len(removed.Items) == 1 && removed.Items[0].Untagged == "clients/other:v1", true)
	loaded, err := f.ImageLoad(ctx, bytes.NewReader(archive))
	must(t, 0, err)
	text, err := io.ReadAll(loaded)
	same(t, "what load says", err == nil && strings.Contains(string(text), "Loaded image: clients/other:v1"), true)
	loaded.Close()
	_, err = f.ImageInspect(ctx, "none:1")
	wantError(t, err, errdefs.IsNotFound, "No such image: none:1")
	_, err = f.ImageRemove(ctx, "none:1", client.ImageRemoveOptions{})
	wantError(t, err, errdefs.IsNotFound, "No such image: none:1")

	imported, err := f.ImageImport(ctx, client.ImageImportSource{Source: archiveOf(t), SourceName: "-"}, "clients/imported:v2", client.ImageImportOptions{
		Message: "said", Changes: []string{"ENV A=b", `CMD ["x"]`}, Platform: ocispec.Platform{OS: "linux", Architecture: "arm64"}})
	must(t, 0, err)
	text, err = io.ReadAll(imported)
	same(t, "what import says", err == nil && strings.Contains(string(text), `"sha256:`), true)
	j, err := f.ImageInspect(ctx, "clients/imported:v2")
	same(t, "the imported", err == nil && j.Comment == "said" && j.Architecture == "arm64" && slices.Contains(j.Config.Env, "A=b") && slices.Equal(j.Config.Cmd, []string{"x"}), true)
	pruned, err := f.ImagePrune(ctx, client.ImagePruneOptions{Filters: make(client.Filters).Add("dangling", "false")})
	same(t, "the pruned", err == nil && len(pruned.Report.ImagesDeleted) > 1 && pruned.Report.SpaceReclaimed > 0, true)
}

func archiveOf(t testing.TB) io.Reader { return archive(t, map[string]string{"f": "1"}) }

func TestCommit(t *testing.T) {
	f := newFixture(t)
	id := f.started("", "sleep", "1000")
	f.exec(id, "echo yes >/committed")
	r, err := f.ContainerCommit(t.Context(), id, client.ContainerCommitOptions{Reference: "clients/committed:v2", Comment: "said", Author: "me",
		Changes: []string{`CMD ["cat","/committed"]`, "LABEL x=y"}, NoPause: true, Config: &container.Config{Env: []string{"C=d"}}})
	must(t, 0, err)
	i, err := f.ImageInspect(t.Context(), "clients/committed:v2")
	must(t, 0, err)
	same(t, "the image", i.ID == r.ID && i.Author == "me" && i.Comment == "said" && i.Config.Labels["x"] == "y" && len(i.RootFS.Layers) == 2, true)
	c := f.create("", container.Config{Image: r.ID}, container.HostConfig{})
	f.start(c)
	f.wait(c, container.WaitConditionNotRunning)
	out, _ := f.logs(c, client.ContainerLogsOptions{ShowStdout: true})
	same(t, "what it runs", out, "yes\n")
	h, err := f.ImageHistory(t.Context(), r.ID)
	same(t, "the history", err == nil && len(h.Items) == 2 && h.Items[0].Comment == "said" && h.Items[0].CreatedBy == "sleep 1000", true)
}

func TestPushAndPull(t *testing.T) {
	name := enginetest.RegistryFor(t) + "/clients/image"
	f := newFixture(t)
	ctx := t.Context()
	i, err := f.ImageInspect(ctx, "busybox")
	must(t, 0, err)
	for _, tag := range []string{"v1", "v2"} {
		_, err = f.ImageTag(ctx, client.ImageTagOptions{Source: "busybox", Target: name + ":" + tag})
		must(t, 0, err)
	}
	push, err := f.ImagePush(ctx, name, client.ImagePushOptions{All: true, RegistryAuth: "e30="})
	must(t, 0, err)
	digest := ""
	for m, err := range push.JSONMessages(ctx) {
		must(t, 0, err)
		if m.Error != nil {
			t.Fatal(m.Error)
		}
		var aux struct{ Tag, Digest string }
		if m.Aux != nil && json.Unmarshal(*m.Aux, &aux) == nil && aux.Tag == "v1" {
			digest = aux.Digest
		}
	}
	d, err := f.DistributionInspect(ctx, name+":v1", client.DistributionInspectOptions{})
	same(t, "the distribution", err == nil && d.Descriptor.Digest.String() == digest && d.Descriptor.Size > 0 && len(d.Platforms) == 1 && d.Platforms[0].OS == "linux", true)
	for _, ref := range []string{name + ":v1", name + ":v2", "busybox"} {
		_, err = f.ImageRemove(ctx, ref, client.ImageRemoveOptions{Force: true})
		must(t, 0, err)
	}
	var said []string
	pull, err := f.ImagePull(ctx, name+":v1", client.ImagePullOptions{})
	must(t, 0, err)
	for m, err := range pull.JSONMessages(ctx) {
		must(t, 0, err)
		said = append(said, m.Status)
	}
	for _, want := range []string{"Pulling from clients/image", "Pull complete", "Digest: " + digest, "Status: Downloaded newer image for " + name + ":v1"} {
		same(t, "said "+want, slices.Contains(said, want), true)
	}
	got, err := f.ImageInspect(ctx, name+"@"+digest)
	same(t, "the pulled", err == nil && got.ID == i.ID && slices.Equal(got.RepoDigests, []string{name + "@" + digest}), true)
	all, err := f.ImagePull(ctx, name, client.ImagePullOptions{All: true, Platforms: []ocispec.Platform{}})
	must(t, 0, err)
	must(t, 0, all.Wait(ctx))
	_, err = f.ImageInspect(ctx, name+":v2")
	must(t, 0, err)
	_, err = f.ImagePull(ctx, name+":none", client.ImagePullOptions{})
	wantError(t, err, errdefs.IsNotFound, "manifest")
	_, err = f.DistributionInspect(ctx, name+":none", client.DistributionInspectOptions{})
	wantError(t, err, errdefs.IsNotFound, "manifest")
	missing, err := f.ImagePush(ctx, name+":none", client.ImagePushOptions{RegistryAuth: "e30="})
	must(t, 0, err)
	err = missing.Wait(ctx)
	wantError(t, err, func(error) bool { return true }, "does not exist locally")
}

func TestVolumes(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	v, err := f.VolumeCreate(ctx, client.VolumeCreateOptions{Name: "v1", Labels: map[string]string{"a": "b"}})
	same(t, "the volume", err == nil && v.Volume.Name == "v1" && v.Volume.Driver == "local" && v.Volume.Scope == "local" && v.Volume.Labels["a"] == "b" && v.Volume.CreatedAt != "", true)
	again, err := f.VolumeInspect(ctx, "v1", client.VolumeInspectOptions{})
	same(t, "the mount point", err == nil && again.Volume.Mountpoint == v.Volume.Mountpoint && strings.HasPrefix(v.Volume.Mountpoint, f.DataRoot()), true)
	id := f.create("", container.Config{Volumes: map[string]struct{}{"/anonymous": {}}}, container.HostConfig{Binds: []string{"v1:/v"}})
	for filter, want := range map[string]int{"name=v1": 1, "label=a=b": 1, "label=a=c": 0, "driver=local": 2, "dangling=true": 0, "dangling=false": 2} {
		key, value, _ := strings.Cut(filter, "=")
		list, err := f.VolumeList(ctx, client.VolumeListOptions{Filters: make(client.Filters).Add(key, value)})
		must(t, 0, err)
		same(t, "volumes with "+filter, len(list.Items), want)
	}
	_, err = f.VolumeRemove(ctx, "v1", client.VolumeRemoveOptions{})
	wantError(t, err, errdefs.IsConflict, "volume is in use")
	_, err = f.ContainerRemove(ctx, id, client.ContainerRemoveOptions{RemoveVolumes: true})
	must(t, 0, err)
	pruned, err := f.VolumePrune(ctx, client.VolumePruneOptions{All: true})
	same(t, "the pruned", err == nil && slices.Equal(pruned.Report.VolumesDeleted, []string{"v1"}), true)
	_, err = f.VolumeInspect(ctx, "v1", client.VolumeInspectOptions{})
	wantError(t, err, errdefs.IsNotFound, "v1")
	_, err = f.VolumeRemove(ctx, "v1", client.VolumeRemoveOptions{Force: true})
	must(t, 0, err)
}

func TestSystem(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	p, err := f.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	same(t, "ping", err == nil && p.OSType == "linux" && p.APIVersion != "" && f.ClientVersion() == p.APIVersion, true)
	v, err := f.ServerVersion(ctx, client.ServerVersionOptions{})
	same(t, "the version", err == nil && v.Version != "" && v.APIVersion == p.APIVersion && v.MinAPIVersion == "1.24" && v.Os == "linux" && len(v.Components) > 0, true)
	i, err := f.Info(ctx, client.InfoOptions{})
	same(t, "the info", err == nil && i.Info.ID != "" && i.Info.Images == 1 && i.Info.NCPU > 0 && i.Info.MemTotal > 0 && i.Info.DockerRootDir == f.DataRoot() && i.Info.OSType == "linux" && i.Info.Driver != "", true)
	id := f.started("used", "sh", "-c", "echo 1234567 >/f; echo ready; sleep 1000")
	f.waitLog(id, "ready")
	du, err := f.DiskUsage(ctx, client.DiskUsageOptions{Containers: true, Images: true, Volumes: true, BuildCache: true, Verbose: true})
	same(t, "the disk usage", err == nil && du.Images.TotalCount == 1 && du.Images.ActiveCount == 1 && du.Images.TotalSize > 500000 &&
		du.Containers.TotalCount == 1 && du.Containers.ActiveCount == 1 && len(du.Containers.Items) == 1 && du.Containers.Items[0].SizeRw > 0 && du.Volumes.TotalCount == 0, true)
	networks, err := f.NetworkList(ctx, client.NetworkListOptions{Filters: make(client.Filters).Add("name", "bridge")})
	same(t, "the networks", err == nil && len(networks.Items) == 1 && networks.Items[0].Driver == "bridge", true)
	n, err := f.NetworkInspect(ctx, "bridge", client.NetworkInspectOptions{})
	same(t, "who is on it", err == nil && n.Network.Containers[id].Name == "used", true)
	pruned, err := f.NetworkPrune(ctx, client.NetworkPruneOptions{})
	same(t, "pruned networks", err == nil && len(pruned.Report.NetworksDeleted) == 0, true)
	_, err = f.BuildCachePrune(ctx, client.BuildCachePruneOptions{All: true})
	must(t, 0, err)
}

func TestEvents(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	live := f.Events(ctx, client.EventsListOptions{Filters: make(client.Filters).Add("type", "container").Add("label", "watch=me")})
	id := f.create("watched", container.Config{Cmd: []string{"sh", "-c", "exit 5"}, Labels: map[string]string{"watch": "me"}}, container.HostConfig{})
	f.started("other", "true")
	f.start(id)
	f.wait(id, container.WaitConditionNotRunning)
	_, err := f.ContainerRemove(ctx, id, client.ContainerRemoveOptions{})
	must(t, 0, err)
	var actions []string
	for len(actions) == 0 || actions[len(actions)-1] != "destroy" {
		select {
		case m := <-live.Messages:
			actions = append(actions, string(m.Action))
			same(t, "the event", m.Type == events.ContainerEventType && m.Actor.ID == id && m.Scope == "local" && m.TimeNano > 0 && m.Actor.Attributes["name"] == "watched" &&
				m.Actor.Attributes["image"] == "busybox" && m.Actor.Attributes["watch"] == "me", true)
			if m.Action == "die" {
				same(t, "its exit code", m.Actor.Attributes["exitCode"], "5")
			}
		case err := <-live.Err:
			t.Fatal(err)
		}
	}
	same(t, "the actions", strings.Join(actions, " "), "create start die destroy")
	past := f.Events(ctx, client.EventsListOptions{Since: "1h", Until: time.Now().Format(time.RFC3339Nano), Filters: make(client.Filters).Add("container", id).Add("event", "start", "die")})
	for _, want := range []events.Action{"start", "die"} {
		m := <-past.Messages
		same(t, "a past action", m.Action, want)
	}
	same(t, "the end", errors.Is(<-past.Err, io.EOF), true)
}
