// Command gantry-oci is an OCI runtime: the containers of Gantry under the
// command line that containerd, Podman and CRI-O know.
package main

import (
	"os"

	"github.com/gantry-containers/gantry/internal/ociruntime"
)

func main() { os.Exit(ociruntime.Main(os.Args[1:])) }
