//go:build unix

package cli

import (
	"fmt"
	"syscall"
)

// become replaces this process, so that signals, terminal and exit code are the
// plugin's own.
func become(path string, argv, env []string) error {
	return fmt.Errorf("cannot run %s: %w", path, syscall.Exec(path, argv, env))
}
