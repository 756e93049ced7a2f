// Package conformance runs the conformance program of the OCI distribution
// specification against our registry, on each of its storages and with accounts,
// and against Debian's docker-registry, and compares.
//
// It is a module of its own because the program needs versions of other modules
// of its own choice.
package conformance
