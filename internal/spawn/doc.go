// Package spawn forks a process and lets it run a flat program of system calls,
// the last of which is execve.
//
// A Go program cannot fork: the child would have one thread of a runtime that
// counts on many. But between fork and execve it may do what syscall.forkExec
// does there, which is raw system calls on memory prepared in advance. This
// package makes that a small machine. The parent builds a Program: a list of
// calls with every argument ready, a little control flow (an errno may be
// ignored or jump somewhere, a result may be kept in a register and be an
// argument later), and sentences that say what each call is for. Start clones a
// child that interprets it.
//
// Because the child has one thread it can do what no Go program can: join a user
// namespace, or a mount namespace without losing its working directory. Because
// it allocates nothing, grows no stack and starts no runtime it costs what its
// system calls cost.
//
// Its memory is not the heap: the child has a stack of its own and, after Lean,
// no copy of what else the process keeps in memory.
//
// The package owns the fork, the channel between parent and child, and the
// interpreter. It knows nothing about containers.
//
// # The channel
//
// Parent and child share one page of memory and a socket. The page holds the
// registers, the number of the step the child is at and the errno it failed
// with, so that reporting costs no system call; the socket carries one byte for
// each barrier (the child waits until the parent answers), descriptors the child
// hands over, and the end of file that says that the child has called execve or
// is gone.
package spawn
