package state

import (
	"errors"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"

	"github.com/gantry-containers/gantry/internal/filter"
)

type thing struct{ Name string }

func open2(t *testing.T, data, exec string) *DB {
	t.Helper()
	db, err := Open(data, exec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// A boot empties the exec root: what was recorded durably must still be there,
// in its durable form, and what was volatile must be gone.
func TestVolatileRecordsHideDurableOnesUntilBoot(t *testing.T) {
	data := t.TempDir()
	db := open2(t, data, t.TempDir())
	table := NewTable[thing](db, "things")
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(table.Put("a", &thing{"durable"}))
	check(table.PutVolatile("a", &thing{"volatile"}))
	check(table.PutVolatile("b", &thing{"only volatile"}))
	all, err := table.All()
	check(err)
	if len(all) != 2 || all["a"].Name != "volatile" {
		t.Fatalf("before the boot: %+v", all)
	}
	check(db.Close())

	table = NewTable[thing](open2(t, data, t.TempDir()), "things")
	all, err = table.All()
	check(err)
	if len(all) != 1 || all["a"].Name != "durable" {
		t.Fatalf("after the boot: %+v", all)
	}
	check(table.PutVolatile("a", &thing{"volatile"}))
	check(table.Put("a", &thing{"newer"}))
	if got, ok, err := table.Get("a"); err != nil || !ok || got.Name != "newer" {
		t.Fatalf("a durable record must replace a volatile one: %+v %v %v", got, ok, err)
	}
	check(table.Delete("a"))
	check(table.Delete("a"))
	if _, ok, _ := table.Get("a"); ok {
		t.Fatal("deleted record is still there")
	}
}

func TestTwoEnginesCannotOpenTheSameRoots(t *testing.T) {
	data, exec := t.TempDir(), t.TempDir()
	open2(t, data, exec)
	if db, err := Open(data, t.TempDir()); err == nil {
		db.Close()
		t.Fatal("a second engine opened the same data root")
	}
}

func message(typ events.Type, action events.Action, id, name, image string) events.Message {
	return events.Message{Type: typ, Action: action, Scope: "local",
		Actor: events.Actor{ID: id, Attributes: map[string]string{"name": name, "image": image, "team": "a"}}}
}

func TestEventFilters(t *testing.T) {
	c := message(events.ContainerEventType, "exec_create: sh", "cafe", "web", "nginx:1.2")
	for _, test := range []struct {
		name string
		args filter.Args
		want bool
	}{
		{"none", nil, true},
		{"prefix of an action with text", filter.Args{"event": {"exec_create"}}, true},
		{"other action", filter.Args{"event": {"start"}}, false},
		{"container by name", filter.Args{"container": {"web"}}, true},
		{"container by ID prefix", filter.Args{"container": {"ca"}}, true},
		{"another container", filter.Args{"container": {"db"}}, false},
		{"image without its tag", filter.Args{"image": {"nginx"}}, true},
		{"another image", filter.Args{"image": {"redis"}}, false},
		{"label", filter.Args{"label": {"team=a"}}, true},
		{"label with another value", filter.Args{"label": {"team=b"}}, false},
		{"type", filter.Args{"type": {"image"}}, false},
	} {
		if got := Included(c, test.args); got != test.want {
			t.Errorf("%s: included = %v", test.name, got)
		}
	}
}

func TestSubscribersSeePastAndPresentOnce(t *testing.T) {
	var e Events
	start := time.Now()
	e.Publish(message(events.ContainerEventType, "create", "1", "a", "i"))
	s := e.Subscribe(start, nil)
	defer s.Close()
	e.Publish(message(events.ContainerEventType, "start", "1", "a", "i"))
	if len(s.Past) != 1 || s.Past[0].Action != "create" {
		t.Fatalf("past: %+v", s.Past)
	}
	if m := <-s.C; m.Action != "start" {
		t.Fatalf("present: %+v", m)
	}
	s.Close()
	s.Close()
	if _, open := <-s.C; open {
		t.Fatal("the channel of a closed subscription is open")
	}
}

// A listener that does not read must not hold up the engine, and must not be
// told a story with holes: it is cut off.
func TestStalledSubscriberIsCutOff(t *testing.T) {
	var e Events
	s := e.Subscribe(time.Time{}, nil)
	for range eventBacklog + 1 {
		e.Publish(message(events.ContainerEventType, "start", "1", "a", "i"))
	}
	n := 0
	for range s.C {
		n++
	}
	if n != eventBacklog || e.Listeners() != 0 {
		t.Fatalf("%d events were kept and %d listeners are left", n, e.Listeners())
	}
}

// Records that belong together are stored together, over volatile ones, or not at all.
func TestPutAll(t *testing.T) {
	type rec struct{ N int }
	db, err := Open(t.TempDir(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	a, b := NewTable[rec](db, "a"), NewTable[rec](db, "b")
	if err := errors.Join(a.Put("x", &rec{1}), a.PutVolatile("x", &rec{2})); err != nil {
		t.Fatal(err)
	}
	check := func(what string, wantA, wantB int) {
		t.Helper()
		x, _, err := a.Get("x")
		y, ok, err2 := b.Get("y")
		if err != nil || err2 != nil || x.N != wantA || ok != (wantB != 0) || ok && y.N != wantB {
			t.Errorf("%s: a has %+v, b %+v, %v, %v", what, x, y, err, err2)
		}
	}
	if err := db.PutAll(a.Change("x", &rec{3}), b.Change("", &rec{3})); err == nil {
		t.Error("a record without a key was stored")
	}
	check("after an error", 2, 0)
	bad := NewTable[func()](db, "c")
	f := func() {}
	if err := db.PutAll(a.Change("x", &rec{3}), bad.Change("z", &f)); err == nil {
		t.Error("a function was stored")
	}
	check("after another", 2, 0)
	if err := db.PutAll(a.Change("x", &rec{4}), b.Change("y", &rec{5})); err != nil {
		t.Fatal(err)
	}
	check("at once", 4, 5)
	if err := db.PutAll(); err != nil {
		t.Error(err)
	}
}
