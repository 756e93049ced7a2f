// Package rtnl speaks rtnetlink (rtnetlink(7)): links, addresses, routes and
// neighbours of one network namespace.
//
// It exists beside the libraries of that kind because starting a container
// waits for it: a Batch carries several requests in one system call, a Conn is
// kept open, and nothing is decoded that nobody asked for. A Conn belongs to
// the network namespace it was dialled in, whatever thread uses it later. The
// package owns no name and no address and knows nothing of containers.
package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Conn is a netlink socket. It is safe for use by several goroutines, which
// take turns.
type Conn struct {
	life sync.RWMutex // guards fd: it is not closed while it is used
	fd   int

	mu  sync.Mutex // taken before life; guards what follows: one exchange at a time
	seq uint32
	buf []byte
}

// Dial opens a socket in the network namespace of the calling thread.
func Dial() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("cannot open a netlink socket: %w", err)
	}
	// The kernel then sends a sentence with an error, and not the request back.
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	// A dump must be a consistent picture of what was asked for, and no more.
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	return &Conn{fd: fd, buf: make([]byte, 4096)}, nil
}

// Close closes the socket; the Conn cannot be used again.
func (c *Conn) Close() error {
	c.life.Lock()
	defer c.life.Unlock()
	if c.fd < 0 {
		return nil
	}
	err := unix.Close(c.fd)
	c.fd = -1
	return err
}

// Error is a request the kernel refused.
type Error struct {
	Doing   string     // what was asked for: "create bridge gantry0"
	Errno   unix.Errno // never 0
	Message string     // the kernel's own explanation, often empty
}

func (e *Error) Error() string {
	if e.Message != "" {
		return fmt.Sprintf("cannot %s: %s: %s", e.Doing, e.Errno.Error(), e.Message)
	}
	return fmt.Sprintf("cannot %s: %s", e.Doing, e.Errno.Error())
}

// Unwrap returns the errno, so that errors.Is(err, unix.EEXIST) works.
func (e *Error) Unwrap() error { return e.Errno }

// Do sends the requests in one message and waits until the kernel has carried
// out all of them. Requests that come after a refused one are carried out
// nevertheless; the error, an *Error, is that of the first refused one.
func (c *Conn) Do(b *Batch) error {
	if len(b.doing) == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.life.RLock()
	defer c.life.RUnlock()
	first := c.seq + 1
	b.finish(first)
	c.seq += uint32(len(b.doing))
	if err := unix.Sendto(c.fd, b.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("cannot send to the kernel's network configuration: %w", err)
	}
	var failed *Error
	for {
		n, err := c.receive(false)
		if err != nil {
			return err
		}
		for data := c.buf[:n]; len(data) >= unix.NLMSG_HDRLEN; {
			h, body, rest := split(data)
			data = rest
			if h.Type != unix.NLMSG_ERROR || h.Seq < first {
				continue
			}
			if e := parseError(h, body); e != nil && failed == nil {
				e.Doing = b.doing[h.Seq-first]
				failed = e
			}
			if h.Seq == c.seq {
				if failed != nil {
					return failed
				}
				return nil
			}
		}
	}
}

// receive reads one datagram into c.buf, which first grows to fit it if it may
// be large; acknowledgements are not.
func (c *Conn) receive(large bool) (n int, err error) {
	for {
		err = nil
		if large {
			n, _, err = unix.Recvfrom(c.fd, nil, unix.MSG_PEEK|unix.MSG_TRUNC)
			if err == nil && n > len(c.buf) {
				c.buf = make([]byte, n)
			}
		}
		if err == nil {
			n, _, err = unix.Recvfrom(c.fd, c.buf, 0)
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("cannot receive from the kernel's network configuration: %w", err)
		}
		return n, nil
	}
}

// dump sends one request and calls each with every answer. What each is given
// is valid only during the call.
func (c *Conn) dump(b *Batch, each func(body []byte)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.life.RLock()
	defer c.life.RUnlock()
	c.seq++
	b.finish(c.seq)
	if err := unix.Sendto(c.fd, b.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("cannot send to the kernel's network configuration: %w", err)
	}
	for {
		n, err := c.receive(true)
		if err != nil {
			return err
		}
		for data := c.buf[:n]; len(data) >= unix.NLMSG_HDRLEN; {
			h, body, rest := split(data)
			data = rest
			switch {
			case h.Seq != c.seq:
			case h.Type == unix.NLMSG_DONE:
				return nil
			case h.Type == unix.NLMSG_ERROR:
				if e := parseError(h, body); e != nil {
					e.Doing = b.doing[0]
					return e
				}
				return nil
			default:
				each(body)
			}
		}
	}
}

// split takes the first message off data, which holds a whole header.
func split(data []byte) (h unix.NlMsghdr, body, rest []byte) {
	h = *(*unix.NlMsghdr)(unsafe.Pointer(&data[0]))
	size := int(h.Len)
	if size < unix.NLMSG_HDRLEN || size > len(data) {
		return h, nil, nil
	}
	return h, data[unix.NLMSG_HDRLEN:size], data[min(align(size), len(data)):]
}

// parseError returns nil for an acknowledgement.
func parseError(h unix.NlMsghdr, body []byte) *Error {
	if len(body) < 4 {
		return &Error{Errno: unix.EBADMSG}
	}
	errno := -int32(binary.NativeEndian.Uint32(body))
	if errno == 0 {
		return nil
	}
	e := &Error{Errno: unix.Errno(errno)}
	if h.Flags&unix.NLM_F_ACK_TLVS != 0 && len(body) > 4+unix.NLMSG_HDRLEN {
		for kind, value := range attrs(body[4+unix.NLMSG_HDRLEN:]) {
			if kind == unix.NLMSGERR_ATTR_MSG {
				e.Message = cstring(value)
			}
		}
	}
	return e
}

// attrs walks over the attributes of a message.
func attrs(data []byte) func(yield func(kind uint16, value []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(data) >= 4 {
			size := int(binary.NativeEndian.Uint16(data))
			if size < 4 || size > len(data) {
				return
			}
			kind := binary.NativeEndian.Uint16(data[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if !yield(kind, data[4:size]) {
				return
			}
			data = data[min(align(size), len(data)):]
		}
	}
}

func align(n int) int { return (n + 3) &^ 3 }

func cstring(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// Index returns the index of the named link, or an error that is ENODEV.
func (c *Conn) Index(name string) (int, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("the interface name %q is too long: %w", name, err)
	}
	c.life.RLock()
	defer c.life.RUnlock()
	// Much cheaper than RTM_GETLINK, which counts the link's statistics.
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), unix.SIOCGIFINDEX, uintptr(unsafe.Pointer(req))); errno != 0 {
		return 0, fmt.Errorf("cannot find interface %s: %w", name, errno)
	}
	return int(req.Uint32()), nil
}

// Settle makes the kernel act now on what it knows of the named link's carrier:
// it otherwise does so a little later, and until then the link drops what it is
// given and a bridge does not use it. Linux before 6.8 just goes on later.
func (c *Conn) Settle(name string) error {
	value := struct{ cmd, data uint32 }{cmd: unix.ETHTOOL_GLINK}
	req := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(req.name[:unix.IFNAMSIZ-1], name)
	c.life.RLock()
	defer c.life.RUnlock()
	// See Linux commit facd15dfd691.
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	runtime.KeepAlive(&value)
	if errno != 0 {
		return fmt.Errorf("cannot read the carrier of %s: %w", name, errno)
	}
	return nil
}
