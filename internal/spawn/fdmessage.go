package spawn

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// fdMessage is a message that carries one descriptor, laid out in advance: the
// child only stores the number of the descriptor in it.
type fdMessage struct {
	hdr    uintptr // struct msghdr
	fdAddr uintptr // where the descriptor goes
}

// Events that are not the caller's.
const (
	eventFile   = 0xff // the byte that comes with a descriptor
	eventDetach = 0xfe
	eventOffer  = 0xfd // a descriptor will be in page.offer
	eventReady  = 0xfc // a spare waits
	eventGate   = 0xfb // the child is at a gate
)

func newFDMessage(mem *arena) *fdMessage {
	data := mem.bytes([]byte{eventFile})
	iov := unix.Iovec{Len: 1}
	control := mem.alloc(unix.CmsgSpace(4))
	h := (*unix.Cmsghdr)(pointer(control))
	h.Level, h.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
	h.SetLen(unix.CmsgLen(4))

	iovAddr := mem.bytes(unsafe.Slice((*byte)(unsafe.Pointer(&iov)), unsafe.Sizeof(iov)))
	*(*uintptr)(pointer(iovAddr + unsafe.Offsetof(iov.Base))) = data
	var msg unix.Msghdr
	msg.Iovlen = 1
	msg.SetControllen(unix.CmsgSpace(4))
	hdr := mem.bytes(unsafe.Slice((*byte)(unsafe.Pointer(&msg)), unsafe.Sizeof(msg)))
	*(*uintptr)(pointer(hdr + unsafe.Offsetof(msg.Iov))) = iovAddr
	*(*uintptr)(pointer(hdr + unsafe.Offsetof(msg.Control))) = control
	return &fdMessage{hdr: hdr, fdAddr: control + uintptr(unix.CmsgLen(0))}
}
