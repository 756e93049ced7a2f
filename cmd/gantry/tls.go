//go:build !lean

package main

import (
	"github.com/gantry-containers/gantry/internal/cli"
	"github.com/gantry-containers/gantry/internal/cli/secure"
)

// What is built with the tag lean becomes gantry-tls, which is this program built
// without it, when it is to speak TLS.
func init() { cli.LoadTLS = secure.Load }
