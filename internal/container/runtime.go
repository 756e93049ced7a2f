package container

import (
	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/shim"
)

// BuiltinRuntime is what the engine's own runtime is called where one is named.
const BuiltinRuntime = "gantry"

// IsBuiltinRuntime reports whether a runtime that nobody has configured is the
// built-in one. It answers to Docker's names as well, which clients, compose
// files and daemon.json say without meaning a particular program. A runtime
// that is configured under one of those names comes first.
func IsBuiltinRuntime(name string) bool {
	switch name {
	case "", BuiltinRuntime, "runc", "io.containerd.runc.v2":
		return true
	}
	return false
}

// runtime finds the external runtime of a name; it is nil for the built-in one.
func (m *Manager) runtime(name string) (*shim.Runtime, error) {
	if r, ok := m.opts.Defaults.Runtimes[name]; ok {
		return &shim.Runtime{Name: name, Path: r.Path, Args: r.Args}, nil
	}
	if IsBuiltinRuntime(name) {
		return nil, nil
	}
	return nil, errs.InvalidArgument("unknown or invalid runtime name: %s", name)
}
