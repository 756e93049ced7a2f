// Package validation runs the validation programs of
// github.com/opencontainers/runtime-tools against gantry-oci and against the
// runc and crun of the machine, and compares.
//
// It is a module of its own because the programs need versions of other modules
// from the time they were written.
package validation
