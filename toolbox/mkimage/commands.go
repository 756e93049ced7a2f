package main

// theirs are the commands taken from u-root.
func theirs() []string {
	return []string{
		"base64", "basename", "cat", "chmod", "chroot", "cmp", "comm", "cp", "date", "dd", "df", "dirname",
		"dmesg", "du", "echo", "false", "find", "free", "grep", "gzip", "hexdump", "hostname",
		"ip", "ln", "losetup", "md5sum", "mkdir", "mkfifo", "mknod", "mktemp", "more", "mount", "mv",
		"netcat", "netstat", "nohup", "pidof", "ping", "printenv", "ps", "pwd", "readlink", "realpath", "rm",
		"seq", "shasum", "sort", "strace", "strings", "stty", "sync", "tar", "tee", "time", "timeout",
		"touch", "tr", "true", "truncate", "tsort", "tty", "umount", "uname", "uniq", "unshare", "uptime",
		"wc", "which", "xargs", "yes",
	}
}

// ours are those in cmds.
func ours() []string {
	return []string{
		"chown", "cut", "env", "head", "httpd", "id", "kill", "ls", "nc", "nproc", "nslookup", "printf", "rmdir", "sh", "sha256sum",
		"sleep", "stat", "tail", "test", "wget", "whoami",
	}
}
