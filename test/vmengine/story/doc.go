// Package story holds the tests of the engine on a machine that is all theirs:
// they look at the whole of /sys/fs/cgroup, load kernel modules and expect that
// nothing else runs. Package vmengine boots such a machine; elsewhere they skip.
package story
