// Package job is what the host tells the first process of a test machine to do.
package job

// Path is where the job is in the initial file system of the machine.
const Path = "/job.json"

// Done starts the last line on the console; the exit code follows.
const Done = "gantry-vm-exit:"

// Job is the work of one machine.
type Job struct {
	Commands [][]string // run one after the other until one fails
	Env      []string
	Modules  []string // files of kernel modules, in the order to load them
	CgroupV1 bool     // v1 hierarchies instead of v2
}
