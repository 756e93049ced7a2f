// Package mount describes mounts as data and makes them without touching the
// host's mount table.
//
// A [Mount] says what mount(8) would be told; a snapshotter hands it out and
// whoever starts a container carries it out inside the container's own mount
// namespace. [Detached] is for everybody who only needs to read or write the
// tree: it mounts without attaching, so no path on the host ever shows it.
//
// The package owns the option syntax of overlayfs (escaping, the limits of a
// page and of 256 bytes). It must not know where snapshots live.
package mount

// Subdir is the option, named as mount(8) names it, that mounts only what is at a
// path inside of the file system: "X-mount.subdir=etc/ssl". Links are followed
// inside of it. Only Detached knows it.
const Subdir = "X-mount.subdir="

// Mount is one mount, in the shape containerd made common: what mount(8) takes.
type Mount struct {
	Type    string   `json:"type"`
	Source  string   `json:"source,omitempty"`
	Options []string `json:"options,omitempty"`
}
