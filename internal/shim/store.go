package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/portproxy"
)

// The names under which net keeps a process's descriptors.
const (
	holdPidfd  = "pidfd"
	holdStdin  = "stdin"
	holdStdout = "stdout" // of a terminal: its master, which is the input too
	holdStderr = "stderr"
)

// held is what net keeps for one process: names and descriptors in one order.
type held struct {
	Key   string
	Names []string `json:",omitempty"`
}

// netHello is what net tells a new io about itself.
type netHello struct {
	Pid     int
	Version string
	Ports   map[string][]portproxy.Mapping
}

// storeClient is io's side of the net role: it starts it, starts it again, and
// tells it everything it has to know.
type storeClient struct {
	execRoot string
	log      *slog.Logger
	orphans  *reaper
	again    func() // gives a fresh net all descriptors

	mu    sync.Mutex // guards everything below, and keeps requests in order
	conn  *net.UnixConn
	pid   int
	ports map[string][]portproxy.Mapping
	done  bool
}

func netSocket(execRoot string) string { return filepath.Join(execRoot, "net.sock") }

// connect finds a net that is running, or starts one, and watches it. With adopt
// it takes what a net has that another io has left.
func (s *storeClient) connect(adopt func(held, *frame)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.dial()
	if errors.Is(err, errOtherVersion) {
		// It was left by an io of another version, and so are the descriptors.
		s.log.Warn("a net role of another version is ended", "pid", s.pid)
		syscall.Kill(s.pid, syscall.SIGKILL)
		err = s.dial()
	}
	if err != nil {
		if err = s.spawn(); err == nil {
			err = s.dial()
		}
		if err == nil {
			s.publishAll()
		}
	}
	if err != nil {
		return fmt.Errorf("cannot start the net role: %w", err)
	}
	if adopt == nil {
		return nil
	}
	return s.take(adopt)
}

var errOtherVersion = errors.New("the net role is of another version")

// reach makes the connection requests go over. s.mu is held.
func (s *storeClient) reach() error {
	conn, err := net.Dial("unix", netSocket(s.execRoot))
	if err != nil {
		return err
	}
	s.conn = conn.(*net.UnixConn)
	return nil
}

// dial connects, checks the version, and watches over the process.
func (s *storeClient) dial() error {
	if err := s.reach(); err != nil {
		return err
	}
	var hello netHello
	if err := s.ask("hello", nil, &hello); err != nil {
		s.lose()
		return err
	}
	s.pid = hello.Pid
	if s.ports == nil {
		s.ports = map[string][]portproxy.Mapping{}
	}
	for owner, list := range hello.Ports {
		s.ports[owner] = list
	}
	if hello.Version != Version {
		s.lose()
		return errOtherVersion
	}
	life, err := net.Dial("unix", netSocket(s.execRoot))
	if err != nil {
		s.lose()
		return err
	}
	go s.watch(life)
	return nil
}

// watch waits for net's end and starts another.
func (s *storeClient) watch(life net.Conn) {
	var b [1]byte
	life.Read(b[:]) // net never says anything here
	life.Close()
	s.revive()
}

// revive starts a net until that works, and tells it everything.
func (s *storeClient) revive() {
	for wait := time.Duration(0); ; wait = min(wait+50*time.Millisecond, time.Second) {
		time.Sleep(wait)
		if s.restart() {
			break
		}
	}
	s.again()
}

// restart starts a net in place of one that is gone. It reports false when that
// has to be tried again.
func (s *storeClient) restart() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return true
	}
	s.lose()
	s.log.Warn("the net role has died and is started again", "pid", s.pid)
	err := s.spawn()
	if err == nil {
		err = s.dial()
	}
	if err != nil {
		s.log.Error("cannot start the net role", "error", err)
		return false
	}
	s.publishAll()
	return true
}

// publishAll gives a fresh net the ports of the one before. s.mu is held.
func (s *storeClient) publishAll() {
	for owner, list := range s.ports {
		if err := s.ask("ports", portsBody{owner, list}, nil); err != nil {
			s.log.Error("cannot publish ports again", "owner", owner, "error", err)
		}
	}
}

// renew ends a net that runs another binary than io does now: it is started
// again as the new one. That breaks connections through published ports, which
// clients have to expect of a proxy; what is fixed in it matters more.
func (s *storeClient) renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	mine, err := os.Stat("/proc/self/exe")
	if err != nil || s.pid == 0 {
		return
	}
	theirs, err := os.Stat(fmt.Sprintf("/proc/%d/exe", s.pid))
	if err != nil || os.SameFile(mine, theirs) {
		return
	}
	s.log.Info("the net role is upgraded as well", "pid", s.pid)
	syscall.Kill(s.pid, syscall.SIGKILL)
}

func (s *storeClient) lose() {
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
}

// fail is called when net does not answer: it hangs, or it is dead already.
func (s *storeClient) fail(err error) {
	s.lose()
	if s.pid > 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		s.log.Error("the net role hangs and is killed", "pid", s.pid)
		syscall.Kill(s.pid, syscall.SIGKILL)
	}
}

// ask sends a request and waits for the answer. s.mu is held.
func (s *storeClient) ask(op string, body, out any) error {
	if s.conn == nil && s.reach() != nil {
		return errs.Unavailable("the net role is being started")
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	s.conn.SetDeadline(time.Now().Add(10 * time.Second))
	if err := send(s.conn, request{op, raw}, nil); err != nil {
		s.fail(err)
		return errs.Unavailable("the net role does not answer: %w", err)
	}
	f, err := receive(s.conn)
	if err != nil {
		s.fail(err)
		return errs.Unavailable("the net role does not answer: %w", err)
	}
	var r reply
	if err := json.Unmarshal(f.json, &r); err != nil {
		return err
	}
	if r.Error != nil || out == nil {
		return r.Error.err()
	}
	return json.Unmarshal(r.Body, out)
}

// tell sends a request that has no answer. What is lost with a dying net is told
// to the next one.
func (s *storeClient) tell(op string, body any, fds ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil && s.reach() != nil {
		return
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return
	}
	s.conn.SetDeadline(time.Now().Add(2 * time.Second))
	if err := send(s.conn, request{op, raw}, nil, fds...); err != nil {
		s.fail(err)
	}
}

// take asks for everything net keeps. s.mu is held.
func (s *storeClient) take(adopt func(held, *frame)) error {
	if err := s.ask("take", nil, nil); err != nil {
		return err
	}
	for {
		f, err := receive(s.conn)
		if err != nil {
			return err
		}
		var h held
		if err := json.Unmarshal(f.json, &h); err != nil {
			f.closeFDs()
			return err
		}
		if h.Key == "" {
			return nil
		}
		adopt(h, f)
	}
}

// setPorts publishes; what it says has happened when it returns.
func (s *storeClient) setPorts(owner string, list []portproxy.Mapping) error {
	deadline := time.Now().Add(2 * time.Second)
	for {
		s.mu.Lock()
		err := s.ask("ports", portsBody{owner, list}, nil)
		if err == nil {
			if len(list) == 0 {
				delete(s.ports, owner)
			} else {
				s.ports[owner] = list
			}
		}
		s.mu.Unlock()
		if !isUnavailable(err) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond) // it is being started again
	}
}

// drop makes net forget a process, or one of its descriptors.
func (s *storeClient) drop(k held) { s.tell("drop", k) }

// shutdown ends net and waits for its end.
func (s *storeClient) shutdown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = true
	s.ask("shutdown", nil, nil)
	s.lose()
	for range 1000 {
		syscall.Wait4(s.pid, nil, syscall.WNOHANG, nil)
		if s.pid <= 0 || syscall.Kill(s.pid, 0) != nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// storeKey names a process in the store, or with a name one of its descriptors.
func (t *task) storeKey(name string) held {
	k := held{Key: t.id + "/" + t.exec}
	if name != "" {
		k.Names = []string{name}
	}
	return k
}

// hold gives net a copy of the process's descriptors, unless they are given up.
func (t *task) hold() {
	t.holdMu.Lock()
	defer t.holdMu.Unlock()
	if t.released {
		return
	}
	k := t.storeKey("")
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	add := func(name string, f *os.File) {
		// A duplicate: input may be closed any moment.
		control(f, func(fd int) error {
			dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
			if err == nil {
				k.Names, fds = append(k.Names, name), append(fds, dup)
			}
			return err
		})
	}
	add(holdPidfd, t.pidfd)
	add(holdStdout, t.out[1])
	add(holdStderr, t.out[2])
	if !t.rec.Terminal {
		add(holdStdin, t.in)
	}
	t.h.store.tell("hold", k, fds...)
}

// unhold makes net forget the process, for good.
func (t *task) unhold() {
	t.holdMu.Lock()
	defer t.holdMu.Unlock()
	t.released = true
	t.h.store.drop(t.storeKey(""))
}
