package shim

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
)

// A frame is two 32-bit big-endian lengths, a JSON value and a blob that is not
// looked into on the way. Descriptors travel with its first byte. Requests on
// one connection are answered in order.
type frame struct {
	json []byte
	blob []byte
	fds  []int // owned by who holds the frame
	from int   // the process that sent it; io sets it
}

const (
	maxFrame = 64 << 20 // bytes; a create with the largest seccomp profile has 0.2 MB
	maxFDs   = 250      // SCM_MAX_FD is 253
)

func (f *frame) closeFDs() {
	for _, fd := range f.fds {
		unix.Close(fd)
	}
	f.fds = nil
}

// takeFD returns the ith descriptor as a file; it belongs to the caller then.
func (f *frame) takeFD(i int, name string) *os.File {
	if i >= len(f.fds) || f.fds[i] < 0 {
		return nil
	}
	file := os.NewFile(uintptr(f.fds[i]), name)
	f.fds[i] = -1
	return file
}

// send writes a frame. Descriptors are duplicated by the kernel. After an error
// the other side has not got all of it.
func send(c *net.UnixConn, v any, blob []byte, fds ...int) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	msg := make([]byte, 8, 8+len(body)+len(blob))
	binary.BigEndian.PutUint32(msg, uint32(len(body)))
	binary.BigEndian.PutUint32(msg[4:], uint32(len(blob)))
	msg = append(append(msg, body...), blob...)
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	n, _, err := c.WriteMsgUnix(msg, oob, nil)
	if err != nil || n == len(msg) {
		// Not even nothing may be written after the last byte: that fails when the
		// other side has read the frame, done what it says and gone, and then
		// would say that the frame was not sent.
		return err
	}
	_, err = c.Write(msg[n:])
	return err
}

// receive reads a frame. The end of the stream between frames is io.EOF.
func receive(c *net.UnixConn) (*frame, error) {
	var head [8]byte
	var oob [unix.SizeofCmsghdr + 4*256]byte
	n, oobn, _, _, err := c.ReadMsgUnix(head[:], oob[:])
	if err != nil {
		return nil, err
	}
	f := &frame{}
	if f.fds, err = parseFDs(oob[:oobn]); err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	if err := f.read(c, head[:], n); err != nil {
		f.closeFDs()
		return nil, err
	}
	return f, nil
}

func (f *frame) read(c io.Reader, head []byte, n int) error {
	if _, err := io.ReadFull(c, head[n:]); err != nil {
		return fmt.Errorf("cannot read a frame: %w", err)
	}
	a, b := binary.BigEndian.Uint32(head), binary.BigEndian.Uint32(head[4:])
	if uint64(a)+uint64(b) > maxFrame {
		return fmt.Errorf("a frame of %d bytes is too large", uint64(a)+uint64(b))
	}
	buf := make([]byte, int(a)+int(b))
	if _, err := io.ReadFull(c, buf); err != nil {
		return fmt.Errorf("cannot read a frame: %w", err)
	}
	f.json, f.blob = buf[:a:a], buf[a:]
	return nil
}

func parseFDs(oob []byte) (fds []int, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for _, m := range list {
		if got, err := unix.ParseUnixRights(&m); err == nil {
			fds = append(fds, got...)
		}
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return fds, nil
}

// request is the JSON of a frame to io or net. Body depends on Op.
type request struct {
	Op   string
	Body json.RawMessage `json:",omitempty"`
}

// reply is the JSON of a frame back.
type reply struct {
	Error *wireError      `json:",omitempty"`
	Body  json.RawMessage `json:",omitempty"`
}

// requireRoot refuses a peer that is not root of this machine, and says which
// process it is.
func requireRoot(c *net.UnixConn) (pid int, err error) {
	cred, err := peer(c)
	if err != nil {
		return 0, err
	}
	if cred.Uid != 0 {
		return 0, errs.Forbidden("only root may talk to the shim")
	}
	return int(cred.Pid), nil
}

func peer(c *net.UnixConn) (cred *unix.Ucred, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := rc.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(cerr, err)
}
