// Package cgroup puts processes into control groups, limits them, measures them
// and stops them, on cgroup v1, v2 and hybrid machines.
//
// It owns the directories below one path (the same path in every hierarchy), the
// translation of specs.LinuxResources (runtime-spec, config-linux.md, "Control
// groups") into the files of whichever version holds each controller, and the
// device program of v2. It decides by looking at the machine, never by
// configuration.
//
// It must not know what a container, an engine or a spec beyond its resources
// is, and it never touches a cgroup it was not given the path of, except to hand
// down what a child needs: controllers in v2's cgroup.subtree_control, CPUs and
// memory nodes in v1's cpuset.
package cgroup
