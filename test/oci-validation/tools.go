//go:build tools

package validation

// The programs are built, not imported: this keeps what they need in go.mod.
import (
	_ "github.com/opencontainers/runtime-tools/cmd/runtimetest"
	_ "github.com/opencontainers/runtime-tools/validation/create"
	_ "github.com/opencontainers/runtime-tools/validation/hooks_stdin"
)
