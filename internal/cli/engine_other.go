//go:build !linux

package cli

import (
	"context"
	"errors"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

// startEngine cannot help here: containers need Linux.
func (a *app) startEngine(_ context.Context, failed *client.ConnectError) error { return failed }

// findEngine has nothing to find, for the same reason.
func findEngine() (string, error) { return "", errors.New("gantryd runs on Linux only") }
