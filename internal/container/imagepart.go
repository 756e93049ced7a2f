package container

import (
	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/layer"
	"github.com/gantry-containers/gantry/internal/mount"
	"github.com/gantry-containers/gantry/internal/ocispec"
)

// imagePart has only a part of an image mounted. That of a single layer is a place
// in a directory; that of several is found when they are mounted.
func (m *Manager) imagePart(out *ocispec.Mount, image, subpath string, h *held) error {
	tree, err := mount.Detached(out.Stack)
	if err != nil {
		return err
	}
	defer tree.Close()
	place, err := layer.PlaceIn(tree, subpath)
	if err != nil {
		return errs.InvalidArgument("cannot access path %s of image %s: %w", subpath, image, err)
	}
	defer place.Close()
	if one := &out.Stack[0]; one.Type != "bind" {
		out.Subpath = subpath
	} else if one.Source, err = h.inside(one.Source, subpath); err != nil {
		return err
	}
	return nil
}
