package image

import (
	"context"
	"fmt"

	"github.com/gantry-containers/gantry/internal/image/toolbox"
)

// LoadEmbedded loads the image the engine carries in itself when that is what
// the reference names and it is not here. It tells whether the reference can be
// resolved now. The engine calls it when a container is to be made of an image
// that was not found, so that it costs nothing before; an image that was
// removed comes back only when it is asked for again.
func (m *Manager) LoadEmbedded(ctx context.Context, ref string) (bool, error) {
	named, err := parseName(ref)
	if err != nil {
		return false, err
	}
	want, err := parseName(toolbox.Name)
	if err != nil {
		return false, err
	}
	if named.String() != want.String() {
		return false, nil
	}
	archive, ok := toolbox.Archive()
	if !ok {
		return false, nil
	}
	defer archive.Close()
	if _, err := m.find(ref); err == nil {
		return true, nil
	}
	if err := m.Load(ctx, archive, LoadOptions{Quiet: true}); err != nil {
		return false, fmt.Errorf("cannot load the embedded image %s: %w", toolbox.Name, err)
	}
	return true, nil
}
