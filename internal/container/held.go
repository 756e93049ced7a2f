package container

import (
	"fmt"
	"os"

	"github.com/gantry-containers/gantry/internal/layer"
)

// held are places in directories that containers write to. They are mounted by
// their descriptors, because what a name means there may change at any moment:
// a symlink to the root of the host could be in its place when the name is used.
type held struct{ files []*os.File }

// inside finds a path below a directory, as a process would whose root that is,
// and returns a name that means this very place until close.
func (h *held) inside(dir, path string) (string, error) {
	root, err := os.OpenFile(dir, os.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	defer root.Close()
	f, err := layer.PlaceIn(root, path)
	if err != nil {
		return "", err
	}
	h.files = append(h.files, f)
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()), nil
}

// namespace opens a namespace of a running container and returns a name that
// means this one until close.
func (h *held) namespace(rec *Record, kind string) (string, error) {
	proc, err := rec.process()
	if err != nil {
		return "", err
	}
	defer proc.Close()
	f, err := under(proc, "ns/"+kind, os.O_RDONLY)
	if err != nil {
		return "", rec.ended()
	}
	h.files = append(h.files, f)
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()), nil
}

func (h *held) close() {
	for _, f := range h.files {
		f.Close()
	}
}
