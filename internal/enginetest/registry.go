package enginetest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// DockerRegistry runs Debian's docker-registry on a free port of the loopback,
// with its files below dir and what else is configured, in lines of YAML: those
// that are indented by two come first and belong to its section http. The error
// wraps exec.ErrNotFound where it is not installed.
func DockerRegistry(dir string, extra ...string) (addr string, stop func(), err error) {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		return "", nil, fmt.Errorf("docker-registry is not installed: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	addr = l.Addr().String()
	l.Close()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp:\n  addr: %q\n  secret: s\n", dir, addr) + strings.Join(extra, "\n")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(config, []byte(text), 0o600)); err != nil {
		return "", nil, err
	}
	var log bytes.Buffer // read when it has ended
	cmd := exec.Command(program, "serve", config)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	stop = func() {
		cmd.Process.Kill()
		<-ended
	}
	if err := answers(addr, ended); err != nil {
		stop()
		return "", nil, fmt.Errorf("docker-registry %w:\n%s", err, &log)
	}
	return addr, stop, nil
}

// answers returns when something listens at the address.
func answers(addr string, ended <-chan struct{}) error {
	late := time.After(time.Minute)
	for {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ended:
			return errors.New("ended")
		case <-late:
			return fmt.Errorf("does not answer: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
