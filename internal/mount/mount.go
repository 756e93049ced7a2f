// Package mount describes mounts as data and makes them without touching the
// host's mount table.
package mount

// Mount is one mount, in the shape containerd made common: what mount(8) takes.
type Mount struct {
	Type    string   `json:"type"`
	Source  string   `json:"source,omitempty"`
	Options []string `json:"options,omitempty"`
}
