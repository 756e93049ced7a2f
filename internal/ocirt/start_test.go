package ocirt

import (
	"os/signal"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDefaults(t *testing.T) {
	// Whatever started the engine may have ignored signals; containers do not.
	signal.Ignore(unix.SIGXFSZ, unix.SIGINT)
	defer signal.Reset(unix.SIGXFSZ, unix.SIGINT)
	cases := []struct{ name, script, want string }{
		{"pid namespace", "echo $$", "1"},
		{"hostname", "hostname", "box"},
		{"user", "id -u; id -g; id -G", "0\n0\n0"},
		{"network namespace", "ls /sys/class/net", "lo"},
		{"devices", "cd /dev; stat -c '%n %t:%T %a' null zero full random urandom tty", "null 1:3 666\nzero 1:5 666\nfull 1:7 666\nrandom 1:8 666\nurandom 1:9 666\ntty 5:0 666"},
		{"links", "cd /dev; readlink fd; readlink stdin; readlink ptmx", "/proc/self/fd\n/proc/self/fd/0\npts/ptmx"},
		{"null works", "echo x > /dev/null && cat /dev/null", ""},
		{"capabilities", "grep Cap /proc/self/status | tr -d '\\t'", "CapInh:0000000000000000\nCapPrm:00000000a80425fb\nCapEff:00000000a80425fb\nCapBnd:00000000a80425fb\nCapAmb:0000000000000000"},
		{"masked file", "cat /proc/keys; stat -c %t:%T /proc/keys", "1:3"},
		{"masked directory", "ls /sys/firmware; ls /proc/scsi 2>/dev/null; touch /sys/firmware/x 2>&1", "touch: /sys/firmware/x: Read-only file system"},
		{"read-only path", "echo 1 2>&1 > /proc/sys/kernel/domainname", "sh: can't create /proc/sys/kernel/domainname: Read-only file system"},
		{"root is writable", "echo hello > /file && cat /file", "hello"},
		{"root is the overlay", "grep -c ' / / .* overlay ' /proc/self/mountinfo", "1"},
		{"no mount of the host", "grep -v -e ' / / ' -e '/proc' -e '/sys' -e '/dev' /proc/self/mountinfo | wc -l", "0"},
		{"descriptors", "ls /proc/self/fd", "0\n1\n2\n3"},
		{"umask", "umask", "0022"},
		{"working directory", "pwd", "/"},
		{"home", "echo $HOME", "/root"},
		{"signals", "grep -e SigIgn -e SigBlk /proc/self/status | tr -d '\\t'", "SigBlk:0000000000000000\nSigIgn:0000000000000000"},
		{"session", "cut -d' ' -f6 /proc/1/stat", "1"},
		{"shm", "grep ' /dev/shm ' /proc/mounts | cut -d' ' -f1-4 | cut -d, -f1-4; stat -c %a /dev/shm", "shm /dev/shm tmpfs rw,nosuid,nodev,noexec\n1777"},
		{"cgroup namespace", "grep -v ':/$' /proc/self/cgroup | grep -v 'name=' | grep -v ^0:", ""},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := newContainer(t, tc.script)
			got, _ := run(t, c)
			if strings.TrimSpace(got) != strings.TrimSpace(tc.want) {
				t.Errorf("output:\n%s\nwant:\n%s", got, tc.want)
			}
		})
	}
}
