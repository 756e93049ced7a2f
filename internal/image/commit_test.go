package image

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/filter"
)

// oneFile is a diff of one file.
func oneFile(name, content string) func(context.Context, io.Writer) error {
	return func(_ context.Context, w io.Writer) error {
		tw := tar.NewWriter(w)
		tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))})
		io.WriteString(tw, content)
		return tw.Close()
	}
}

func nothing(_ context.Context, w io.Writer) error { return tar.NewWriter(w).Close() }

func (r *rig) parentImage() digest.Digest {
	r.t.Helper()
	h := newHub(r.t)
	h.add("1", makeImage(r.t, host, map[string]string{"a": "1"}, map[string]string{"b": "2"}))
	r.pull(h.host() + "/web:1")
	img, err := r.Resolve(r.t.Context(), h.host()+"/web:1", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return img.ID
}

func TestCommitAddsALayerAndALineOfHistory(t *testing.T) {
	r := newRig(t)
	parent := r.parentImage()
	before, err := r.Resolve(t.Context(), parent.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	heard := r.events.Subscribe(time.Time{}, filter.Args{})
	defer heard.Close()
	id, name, err := r.Commit(t.Context(), CommitOptions{
		Parent:    parent,
		Container: dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{Cmd: []string{"sh", "-c", "touch x"}, Env: []string{"A=1", "B=1"}}},
		Config:    dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{Env: []string{"A=2"}}},
		Changes:   []string{`LABEL a=b`, "EXPOSE 80"},
		Repo:      "made", Tag: "2", Author: "me", Comment: "why",
		Diff: oneFile("new", "x"),
	})
	if err != nil || name != "made:2" {
		t.Fatalf("%q, %v", name, err)
	}
	after, err := r.Resolve(t.Context(), "made:2", nil)
	if err != nil || after.ID != id {
		t.Fatalf("%v, %v", after, err)
	}
	if !slices.Equal(after.Layers[:len(before.Layers)], before.Layers) || len(after.Layers) != len(before.Layers)+1 {
		t.Errorf("layers %v over %v", after.Layers, before.Layers)
	}
	config := after.Config.Config
	if diff := cmp.Diff([]string{"A=2", "B=1"}, config.Env); diff != "" {
		t.Error(diff)
	}
	if _, ok := config.ExposedPorts["80/tcp"]; !ok || config.Labels["a"] != "b" || !slices.Equal(config.Cmd, []string{"sh", "-c", "touch x"}) {
		t.Errorf("config %+v", config)
	}
	history, err := r.History(t.Context(), "made:2", nil)
	if err != nil {
		t.Fatal(err)
	}
	if top := history[0]; top.CreatedBy != "sh -c touch x" || top.Comment != "why" || top.Size != 1 || top.ID != id.String() || history[1].ID != parent.String() {
		t.Errorf("history %+v", history)
	}
	if r.Parent(id.String()) != parent.String() {
		t.Error("the parent is not recorded")
	}
	var actions []events.Action
	for len(actions) < 2 {
		e := <-heard.C
		actions = append(actions, e.Action)
	}
	if diff := cmp.Diff([]events.Action{events.ActionCreate, events.ActionTag}, actions); diff != "" {
		t.Error(diff)
	}
	r.restart()
	if _, err := r.Resolve(t.Context(), "made:2", nil); err != nil {
		t.Error("after a restart:", err)
	}
}

// A commit of a container that changed no file gives no layer, as Docker's.
func TestCommitOfNothingIsALineOfHistoryOnly(t *testing.T) {
	r := newRig(t)
	parent := r.parentImage()
	id, _, err := r.Commit(t.Context(), CommitOptions{Parent: parent, Diff: nothing})
	if err != nil {
		t.Fatal(err)
	}
	was, _ := r.Resolve(t.Context(), parent.String(), nil)
	is, err := r.Resolve(t.Context(), id.String(), nil)
	if err != nil || !slices.Equal(was.Layers, is.Layers) {
		t.Fatalf("%v, %v", is, err)
	}
	if last := is.Config.History[len(is.Config.History)-1]; !last.EmptyLayer {
		t.Errorf("history %+v", last)
	}
	if _, err := r.opts.Content.Stat(emptyLayer); !errdefs.IsNotFound(err) {
		t.Error("the empty archive was kept")
	}
}

func TestFailedCommitLeavesNothing(t *testing.T) {
	r := newRig(t)
	parent := r.parentImage()
	var before, after [3]int
	before[0], before[1], before[2] = r.left()
	for name, o := range map[string]CommitOptions{
		"name":   {Repo: "Bad", Diff: nothing},
		"change": {Changes: []string{"RUN x"}, Diff: nothing},
		"diff": {Diff: func(ctx context.Context, w io.Writer) error {
			oneFile("half", "x")(ctx, w)
			return errors.New("the disk is gone")
		}},
		"archive": {Diff: func(_ context.Context, w io.Writer) error {
			_, err := io.WriteString(w, "this is no archive")
			return err
		}},
	} {
		o.Parent = parent
		if _, _, err := r.Commit(t.Context(), o); err == nil {
			t.Errorf("%s: it was committed", name)
		}
		if after[0], after[1], after[2] = r.left(); before != after {
			t.Errorf("%s: there were %v blobs, layers and unfinished blobs before, %v after", name, before, after)
		}
	}
	if _, _, err := r.Commit(t.Context(), CommitOptions{Parent: digest.FromString("no"), Diff: nothing}); !errdefs.IsNotFound(err) {
		t.Errorf("a commit over an image that is not here: %v", err)
	}
}

// An entry point that is replaced does not get the arguments of the one before.
func TestCommitChangesOfTheCommand(t *testing.T) {
	container := dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{Entrypoint: []string{"old"}, Cmd: []string{"args"}}}
	for _, tt := range []struct {
		changes         []string
		entrypoint, cmd []string
	}{
		{nil, []string{"old"}, []string{"args"}},
		{[]string{`ENTRYPOINT ["new"]`}, []string{"new"}, nil},
		{[]string{`CMD ["x"]`}, []string{"old"}, []string{"x"}},
		{[]string{`CMD ["x"]`, `ENTRYPOINT ["new"]`}, []string{"new"}, []string{"x"}},
		{[]string{`ENTRYPOINT []`}, []string{}, []string{"args"}},
	} {
		o := CommitOptions{Config: container, Container: container, Changes: tt.changes}
		config, _, err := o.prepare()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([][]string{tt.entrypoint, tt.cmd}, [][]string{config.Entrypoint, config.Cmd}); diff != "" {
			t.Errorf("%q:\n%s", tt.changes, diff)
		}
	}
}

// tarred is a diff that is there already.
func tarred(data []byte) func(context.Context, io.Writer) error {
	return func(_ context.Context, w io.Writer) error {
		_, err := w.Write(data)
		return err
	}
}
