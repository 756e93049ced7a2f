package engine

import (
	"context"
	"time"

	"github.com/gantry-containers/gantry/internal/apparmor"
)

// loadAppArmor returns the profile containers get by default, "" where the
// kernel has no AppArmor. Without the means to load one containers run
// unconfined by it, and a warning says so.
func loadAppArmor(ctx context.Context) (profile, warning string) {
	if !apparmor.Enabled() {
		return "", ""
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := apparmor.LoadDefault(ctx); err != nil {
		return "", "AppArmor does not confine containers that ask for no profile: " + err.Error()
	}
	return apparmor.DefaultProfile, ""
}
