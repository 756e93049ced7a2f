//go:build !linux

package cli

import (
	"context"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

// startEngine cannot help here: containers need Linux.
func (a *app) startEngine(_ context.Context, failed *client.ConnectError) error { return failed }
