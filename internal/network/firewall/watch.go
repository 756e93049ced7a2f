package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

const delTable = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELTABLE

// Watcher tells when tables are removed, as "nft flush ruleset" does, which is
// how many machines load their firewall again.
type Watcher struct{ file *os.File }

// Watch calls removed, on a goroutine of its own, after any table was removed,
// until Close. It watches the network namespace of the calling thread.
func Watch(removed func()) (*Watcher, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("cannot watch nftables: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot watch nftables: %w", err)
	}
	w := &Watcher{os.NewFile(uintptr(fd), "nftables")}
	go w.watch(removed)
	return w, nil
}

// Close ends the watch. A call of removed may still be under way.
func (w *Watcher) Close() { w.file.Close() }

func (w *Watcher) watch(removed func()) {
	buf := make([]byte, 8192)
	for {
		n, err := w.file.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		// Messages were lost (ENOBUFS), or cut off: it may have happened.
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
		if err != nil || n == len(buf) || tellsOfRemoval(buf[:n]) {
			removed()
		}
	}
}

// tellsOfRemoval looks through the messages of one datagram.
func tellsOfRemoval(data []byte) bool {
	for len(data) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(data))
		if binary.NativeEndian.Uint16(data[4:]) == delTable {
			return true
		}
		if size < unix.NLMSG_HDRLEN || size > len(data) {
			return false
		}
		data = data[min((size+3)&^3, len(data)):]
	}
	return false
}

// Exists tells whether the table is there.
func (t *Table) Exists() (bool, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(t.ns))
	if err != nil {
		return false, fmt.Errorf("cannot reach nftables: %w", err)
	}
	_, err = conn.ListTableOfFamily(t.name, nftables.TableFamilyIPv4)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot look for nftables table %s: %w", t.name, err)
	}
	return true, nil
}
