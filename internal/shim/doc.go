// Package shim holds containers: it is the parent of every container process
// and the owner of what such a process may lose only with its life: its stdio,
// its terminal, its log, its exit code, its published ports. The daemon decides
// and may die at any moment; the shim holds and has nothing to decide.
//
// The package has both sides: the program gantry-shim in its two roles (Main),
// and the Client the daemon uses. It knows OCI specifications, descriptors and
// log files; it must not know images, networks, records or the Engine API, and
// its io role parses nothing that a container sent over a network.
//
// # Roles
//
// io is the parent. It listens on shim.sock in the exec root, for root only.
// net relays published ports (package portproxy) and is the store of
// descriptors: for every process io holds, net has a second copy of its pidfd,
// the read ends of its output, the write end of its input and its terminal. It
// never touches them.
//
// io starts net and starts it again when the connection to it breaks. net opens
// the listening sockets itself: a crash breaks the connections that pass
// through it, and the ports are back as soon as it is, a few milliseconds later.
//
// # Who may die
//
//   - The daemon: nothing happens. Exits are kept in the exec root until the
//     daemon forgets them, and the event stream begins with all of them.
//   - net: io starts it again and gives it the ports and descriptors again.
//   - io: containers run on, writing into pipes of which they hold both ends (so
//     there is no SIGPIPE) and net holds the reading one. The daemon's next
//     Ensure starts a new io, which takes its descriptors from net, or, were net
//     gone too, opens the pipes anew through /proc/PID/fd. It is not the parent
//     any more, so exit codes come from PIDFD_GET_INFO (Linux 6.15); without it
//     an exit is reported as unknown, never as 0. Attached clients are cut off.
//     What the dead one had taken out of a pipe and not written to the log is
//     lost: a chunk of 64 KB at most, and the beginning of a line.
//   - Both at once: containers with a terminal get SIGHUP.
//
// An upgrade is execve of the new binary in io: the PID, the children and the
// descriptors stay, and what must be known about them passes through a memfd.
// net, which has nothing that io could not give it again, is started anew.
//
// io leaves the daemon's session and cgroup (it moves itself to
// /INSTANCE-shim in every hierarchy), so that stopping gantryd.service, which
// kills the cgroup of the service, does not reach it. A unit that wants to keep
// the shim in its own cgroup has to say KillMode=process.
//
// # External runtimes
//
// A container may be made by another OCI runtime (Runtime): a program that is
// executed to create and start it, to execute processes in it, and to delete it.
// All else is as with the built-in one: the processes are left to io, the
// subreaper, when the runtime has ended, and io holds them by their pidfds.
//
// The runtime creates the container from a mount namespace of its own, in which
// the root file system and the network namespace are mounted into the bundle. So
// neither appears on the host, and neither has to be unmounted.
//
// # Slow clients
//
// As in Docker, an attached client that does not read holds up the container
// once the buffers of its connection are full: output that is piped into
// something slow must not lose bytes. A client that takes not one byte for ten
// minutes (stallLimit) is disconnected, so that a forgotten one cannot stop the
// container and its log forever.
//
// # Locks
//
// In this order: Holder.gate (a kind of lock: entered by whatever handles data
// or a request, shut by an upgrade), Holder.mu, task.holdMu, storeClient.mu,
// task.mu, client.mu, task.inMu; and Holder.gate, spares.busy, spares.mu. No lock
// but the gate is held while blocking on a descriptor, except client.mu and
// task.inMu, which exist to keep writes to one descriptor whole, and
// storeClient.mu, whose connection has a deadline.
package shim
