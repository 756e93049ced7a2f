package shim

import (
	"encoding/json"
	"time"

	"github.com/gantry-containers/gantry/internal/logs"
	"github.com/gantry-containers/gantry/internal/mount"
)

// StartRequest describes a container to start.
type StartRequest struct {
	ID   string
	Spec json.RawMessage `json:"-"` // OCI runtime configuration; travels beside the request
	// Seccomp is the seccomp profile (specs.LinuxSeccomp), in place of one in
	// Spec: the shim reads and compiles equal bytes once. It travels behind Spec.
	// A Runtime that is not ours takes its profile from Spec.
	Seccomp     json.RawMessage `json:"-"`
	SeccompSize int             `json:",omitempty"` // its bytes; set by Client.Start
	RootMounts  []mount.Mount   `json:",omitempty"`
	Bundle      string          `json:",omitempty"`
	// OwnParent says that the directory the cgroup is made in is this engine's
	// alone: others may be made there ahead.
	OwnParent bool     `json:",omitempty"`
	Runtime   *Runtime `json:",omitempty"` // nil is the built-in one

	Terminal    bool    `json:",omitempty"`
	OpenStdin   bool    `json:",omitempty"`
	StdinOnce   bool    `json:",omitempty"` // the end of a client's input is the end of the container's
	ConsoleSize [2]uint // height, width; 0,0 leaves the kernel's default

	// Attach describes clients that see the process from its first byte on, whose
	// sockets travel with the request: up to MaxAttach. Their IDs are that of the
	// request. After a failed start they are let go without a shutdown.
	Attach []AttachRequest `json:",omitempty"`

	Log       logs.Config
	Ephemeral bool              `json:",omitempty"` // nobody will ask for it after its exit was told once
	Labels    map[string]string `json:",omitempty"` // given back in Status
}

// MaxAttach is how many clients can come with a start: as many descriptors fit
// into a message.
const MaxAttach = 64

// StartReply says what was started.
type StartReply struct {
	Pid       int
	StartedAt time.Time
	StartTime uint64 // clock ticks after boot, field 22 of /proc/PID/stat
}

// ExecRequest describes a further process in a running container.
type ExecRequest struct {
	ID, ExecID string
	Process    json.RawMessage `json:"-"` // specs.Process

	Terminal  bool `json:",omitempty"`
	OpenStdin bool `json:",omitempty"`
	Detach    bool `json:",omitempty"` // nobody will ever read its output
	// Attach describes the client that sees all of the process, whose socket
	// travels with the request: they come to be together or not at all, whoever
	// dies meanwhile. Its ID and ExecID are those of the request.
	Attach *AttachRequest `json:",omitempty"`
}

// AttachRequest describes what a client wants of a process.
type AttachRequest struct {
	ID, ExecID            string
	Stdin, Stdout, Stderr bool
	Multiplex             bool   // frames with an 8-byte header; never for a terminal
	DetachKeys            []byte `json:",omitempty"` // none: ctrl-p ctrl-q; only looked for on a terminal
	Unread                []byte `json:",omitempty"` // input that was read from the client already
	AttachID              string `json:",omitempty"` // comes back in events; chosen by the caller
	// LeaveOpen has the connection outlast the process: the caller has it too, and
	// goes on with it after an EventExit that says LeftOpen. A stream that ends in
	// any other way is shut down all the same.
	LeaveOpen bool `json:",omitempty"`
	// Run is when the run began that the client means: if that one has ended, so
	// has the stream. Without it the client waits for the next run.
	Run time.Time `json:",omitzero"`
}

// Status is what the shim knows of a process. ExecID is empty for a container's
// first process.
type Status struct {
	ID          string
	ExecID      string `json:",omitempty"`
	Pid         int
	StartedAt   time.Time
	StartTime   uint64
	Running     bool
	ExitCode    int               `json:",omitempty"` // 128+n after signal n
	ExitedAt    time.Time         `json:",omitzero"`
	OOMKilled   bool              `json:",omitempty"` // the OOM killer struck in the container
	ExitUnknown bool              `json:",omitempty"` // it ended and nobody can say how; ExitCode is then 255
	Ephemeral   bool              `json:",omitempty"`
	Labels      map[string]string `json:",omitempty"`
}

// What an Event is about.
const (
	EventExit   = "exit"   // the process has ended, its log is complete
	EventOOM    = "oom"    // the OOM killer struck
	EventDetach = "detach" // an attached client typed its detach keys
	EventEnd    = "end"    // an attached client's stream has ended otherwise
)

// Event tells of a change of a process, with its status after it.
type Event struct {
	Type string
	Status
	AttachID string `json:",omitempty"` // of EventDetach and EventEnd
	// LeftOpen says of EventExit that all output is with the client that asked for
	// LeaveOpen, and nothing more comes: there is no EventEnd of it. One that does
	// not read has its connection shut down instead, when it has read. An exit that
	// is told again does not tell this.
	LeftOpen bool `json:",omitempty"`
}
