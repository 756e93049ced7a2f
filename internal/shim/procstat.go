package shim

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// procStat returns the fields of /proc/PID/stat behind the command, which may
// contain anything but ends with the last ")": the first is field 3, the state.
func procStat(pid int) ([]string, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	if len(fields) < 50 {
		return nil, fmt.Errorf("/proc/%d/stat is too short", pid)
	}
	return fields, nil
}

// startTime is field 22, in clock ticks after boot.
func startTime(pid int) (uint64, error) {
	fields, err := procStat(pid)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(fields[22-3], 10, 64)
}

// zombieExit returns how a process has ended that nobody has collected yet:
// field 52.
func zombieExit(pid int, start uint64) (unix.WaitStatus, bool) {
	fields, err := procStat(pid)
	if err != nil || fields[0] != "Z" || fields[22-3] != strconv.FormatUint(start, 10) {
		return 0, false
	}
	ws, err := strconv.ParseUint(fields[52-3], 10, 32)
	return unix.WaitStatus(ws), err == nil
}
