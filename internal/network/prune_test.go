package network

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantry-containers/gantry/internal/filter"
)

// A prune takes the networks somebody made and nobody uses, and never those
// every engine has.
func TestPrune(t *testing.T) {
	h := newHost(t, Options{})
	ctx := context.Background()
	made := func(name string, labels map[string]string, age time.Duration) {
		r := newRecord(name, "bridge")
		r.Labels, r.Created = labels, time.Now().Add(-age)
		if err := h.store(r); err != nil {
			t.Fatal(err)
		}
	}
	made("old", nil, 48*time.Hour)
	made("new", nil, 0)
	made("labelled", map[string]string{"keep": "yes"}, 48*time.Hour)
	made("used", nil, 48*time.Hour)
	h.mu.Lock()
	h.endpoints["someone"] = &endpoint{ContainerID: "someone", Network: "used"}
	h.mu.Unlock()
	sub := h.Events.Subscribe(time.Time{}, nil)
	defer sub.Close()
	for _, step := range []struct {
		filters filter.Args
		gone    []string
	}{
		{filter.Args{"until": {"24h"}, "label!": {"keep"}}, []string{"old"}},
		{filter.Args{"label": {"keep=no"}}, nil},
		{filter.Args{"label": {"keep=yes"}}, []string{"labelled"}},
		{nil, []string{"new"}},
		{nil, nil},
	} {
		report, err := h.Prune(ctx, step.filters)
		if err != nil || !slices.Equal(report.NetworksDeleted, step.gone) {
			t.Errorf("%v took %v, %v; want %v", step.filters, report, err, step.gone)
		}
	}
	if e := <-sub.C; e.Action != "destroy" || e.Actor.Attributes["name"] != "old" {
		t.Errorf("told of %+v", e)
	}
	if e := <-sub.C; e.Action != "prune" || e.Actor.Attributes["reclaimed"] != "0" {
		t.Errorf("told of %+v", e)
	}
	for _, bad := range []filter.Args{{"dangling": {"true"}}, {"until": {"soon"}}} {
		if _, err := h.Prune(ctx, bad); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	h.kill(t) // what is gone stays gone
	list, err := h.List(ctx, filter.Args{"type": {"custom"}})
	if err != nil || len(list) != 1 || list[0].Name != "used" {
		t.Errorf("custom networks left: %v, %v", list, err)
	}
	if list, err = h.List(ctx, filter.Args{"dangling": {"false"}}); err != nil || len(list) != 3 {
		t.Errorf("networks in use, after those who used them are gone: %v, %v", list, err)
	}
	if _, err := h.Prune(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if list, err = h.List(ctx, nil); err != nil || len(list) != 3 {
		t.Errorf("left: %v, %v", list, err)
	}
}
