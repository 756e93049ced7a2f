package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

// LoadTLS is secure.Load in a program that was linked with TLS, and nil in others:
// those become gantry-tls when they are to speak it. TLS is a fifth of what gantry
// takes to start, and on the engine's own machine nobody speaks it.
var LoadTLS func(caFile, certFile, keyFile string, verify, optional bool) (client.Secure, error)

// becomeTLS replaces this process by the same command line with TLS, if it has to.
func (a *app) becomeTLS(args []string) error {
	if LoadTLS != nil || !a.global.useTLS && !a.global.verify {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find gantry-tls: %w", err)
	}
	path := filepath.Join(filepath.Dir(self), "gantry-tls"+exeSuffix())
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("this gantry does not speak TLS, and gantry-tls, which does, is not beside it in %s", filepath.Dir(self))
	}
	return become(path, args, os.Environ())
}
