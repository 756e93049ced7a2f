// Package toolbox carries the image that is embedded in the engine, so that a
// first container needs neither a network nor a registry.
//
// The archive is made from the module in the directory toolbox of this
// repository when the engine is built; it is no part of the repository. An
// engine built without it works, and only lacks that image.
package toolbox

import (
	"embed"
	"io"
)

// Name is what the image is called.
const Name = "toolbox:latest"

// The directory always has a README in it, for an embed must find something.
//
//go:embed archive
var files embed.FS

// Archive opens the image archive, which Manager.Load reads; the caller closes
// it. It returns false when the engine was built without one.
func Archive() (io.ReadCloser, bool) {
	f, err := files.Open("archive/toolbox.tar.gz")
	if err != nil {
		return nil, false
	}
	return f, true
}
