package firewall

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Of linux/netfilter/nfnetlink_conntrack.h.
const (
	ctDelete        = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2 // IPCTNL_MSG_CT_DELETE
	ctaTupleReply   = 2
	ctaFilter       = 25
	ctaTupleIP      = 1
	ctaIPv4Src      = 1
	ctaFilterReply  = 2 // CTA_FILTER_REPLY_FLAGS
	ctaFilterFIPSrc = 1 // CTA_FILTER_F_CTA_IP_SRC
)

// ForgetFlows makes the kernel forget the connections that the address answers.
// The kernel looks at all of them for that. On Linux before 5.8, which cannot
// be asked for it, nothing is forgotten.
func (t *Table) ForgetFlows(addr netip.Addr) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: t.ns})
	if err != nil {
		return fmt.Errorf("cannot reach conntrack: %w", err)
	}
	defer conn.Close()
	attrs := netlink.NewAttributeEncoder()
	attrs.Nested(ctaTupleReply, func(tuple *netlink.AttributeEncoder) error {
		tuple.Nested(ctaTupleIP, func(ip *netlink.AttributeEncoder) error {
			ip.Bytes(ctaIPv4Src, addr.AsSlice())
			return nil
		})
		return nil
	})
	attrs.Nested(ctaFilter, func(filter *netlink.AttributeEncoder) error {
		filter.Uint32(ctaFilterReply, ctaFilterFIPSrc)
		return nil
	})
	data, err := attrs.Encode()
	if err != nil {
		return fmt.Errorf("cannot encode a conntrack filter: %w", err)
	}
	_, err = conn.Execute(netlink.Message{
		Header: netlink.Header{Type: ctDelete, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append([]byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0}, data...),
	})
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cannot forget the connections of %s: %w", addr, err)
	}
	return nil
}
