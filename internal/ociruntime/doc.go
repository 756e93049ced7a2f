// Package ociruntime is the standard command line of an OCI runtime (runtime-spec,
// runtime.md, "Operations") over package ocirt: what containerd, Podman, CRI-O
// and the conformance suite call.
//
// It owns the state directory: one directory per container below the root, with
// what has to outlive the command that created it. It starts, signals and deletes
// containers, but holds none of them: between two commands nothing of it runs.
//
// It must not do anything to a container that the shim would do differently; the
// two share ocirt, cgroup and seccomp. It knows nothing of images, networks,
// logs or the engine.
package ociruntime
