//go:build tools

package conformance

// The program is built, not imported: this keeps what it needs in go.mod.
import _ "github.com/opencontainers/distribution-spec/conformance"
