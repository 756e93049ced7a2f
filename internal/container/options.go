package container

import (
	"net"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/filter"
	"github.com/gantry-containers/gantry/internal/logs"
)

// CreateOptions describe the container to create. The manager takes ownership
// of what the pointers lead to.
type CreateOptions struct {
	Name             string // "" for a generated one
	Config           *api.Config
	HostConfig       *api.HostConfig
	NetworkingConfig *network.NetworkingConfig
	Platform         *ocispec.Platform
	// DefaultReadOnlyNonRecursive leaves what is mounted below the source of a
	// read-only bind writable, as it was before API 1.44.
	DefaultReadOnlyNonRecursive bool

	born func(*Container) // called before anybody can find the container; may be nil
}

// StopOptions say how to stop a container; the zero value is as it was created.
type StopOptions struct {
	Signal  string
	Timeout *int // seconds; negative waits for ever
}

// RemoveOptions say how to remove a container.
type RemoveOptions struct {
	Force   bool // kill it when it runs
	Volumes bool // remove its anonymous volumes
	Link    bool // remove a legacy link, which do not exist here
}

// ListOptions choose the containers of a list.
type ListOptions struct {
	All     bool // also those that do not run
	Limit   int  // the newest so many, running or not; 0 for no limit
	Size    bool // with the sizes of their file systems
	Filters filter.Args
}

// StatsOptions say how often to send statistics.
type StatsOptions struct {
	Stream  bool // until the caller ends, instead of once
	OneShot bool // at once, without the sample before that rates are made of
}

// LogsOptions choose the log lines to send.
type LogsOptions struct {
	logs.ReadOptions
}

// AttachOptions say which streams of a container to attach.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	Stream                bool   // the live streams
	Logs                  bool   // what was logged before, first
	DetachKeys            string // as "ctrl-p,ctrl-q"; "" for that default
}

// Hijack takes the connection away from the HTTP server. It answers the
// request, so errors must have been found before. The bytes already read from
// the client but not consumed are returned with it.
type Hijack func(tty bool) (conn net.Conn, unread []byte, err error)

// CopyToOptions say how an archive is unpacked into a container.
type CopyToOptions struct {
	NoOverwriteDirNonDir bool // refuse to replace a directory by a file and the other way round
	CopyUIDGID           bool // give the files to the container's user
}

// ExecStartOptions say how to start a created exec.
type ExecStartOptions struct {
	Detach      bool
	Tty         bool
	ConsoleSize *[2]uint // height, width
}
