// Package seccomp compiles the seccomp part of an OCI specification
// (runtime-spec, config-linux.md, "Seccomp") into a classic BPF program for
// seccomp(2).
//
// It owns the numbers of the system calls, the meaning of the profile and the
// program. It knows nothing of processes: installing the program is its
// caller's, and so is choosing a profile.
//
// # Meaning
//
//   - The native architecture is always part of the filter; the architectures
//     of the profile the same kernel can run come with it. A call from any
//     other kills the process.
//   - Names of system calls this package does not know, or that an architecture
//     has not got, are left out.
//   - Of several rules for one call, one without arguments decides; else they are
//     tried in the order of the profile, and the first whose arguments all match
//     decides. Rules with the action of the default are left out. If a rule names
//     the same argument twice, each of its conditions is a rule of its own, which
//     is what profiles written for libseccomp mean by it.
//   - On 32-bit architectures the low halves of arguments and values are compared.
//   - If the default is to fail or kill, a call with a number above every number
//     the profile names fails with ENOSYS: it is newer than the profile, and
//     programs know to fall back.
package seccomp

//go:generate go run ./internal/gen
