package portproxy

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// sctpPort is an SCTP port that is only held: SCTP reaches a container through
// the firewall, there is no relay for it.
type sctpPort struct{ fd int }

// reserveSCTP binds the port. On a kernel without SCTP sockets there is nobody
// to hold it against.
func reserveSCTP(addr netip.AddrPort) (*sctpPort, error) {
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()})
	if addr.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT) {
		return &sctpPort{-1}, nil
	}
	if err != nil {
		return nil, err
	}
	if family == unix.AF_INET6 {
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err := unix.Bind(fd, sa); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &sctpPort{fd}, nil
}

func (p *sctpPort) retarget(netip.AddrPort) {}

func (p *sctpPort) close() {
	if p.fd >= 0 {
		unix.Close(p.fd)
		p.fd = -1
	}
}
