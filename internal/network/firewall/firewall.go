// Package firewall keeps the nftables table of one engine instance.
//
// The table is written once and then only its sets and maps change: a published
// port is one element of a map, whatever the number of containers. As text:
//
//	table ip NAME {
//		set bridges  { type ifname }                       # our bridges
//		set inside   { type ifname . ifname }              # bridges whose containers may talk to each other
//		set subnets  { type ipv4_addr; flags interval }    # what leaves with the host's address
//		map ports    { type inet_proto . inet_service : ipv4_addr . inet_service }
//		map ports_at { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }
//
//		chain publish {
//			dnat to ip daddr . meta l4proto . th dport map @ports_at
//			dnat to meta l4proto . th dport map @ports
//		}
//		chain prerouting {
//			type nat hook prerouting priority dstnat
//			iifname @bridges return                        # containers are served by the relay
//			fib daddr type local jump publish
//		}
//		chain output {
//			type nat hook output priority -100
//			ip daddr 127.0.0.0/8 return                    # and so is the loopback
//			fib daddr type local jump publish
//		}
//		chain postrouting {
//			type nat hook postrouting priority srcnat
//			ip saddr @subnets oifname != @bridges masquerade
//		}
//		chain forward {
//			type filter hook forward priority filter
//			oifname @bridges jump inward
//		}
//		chain inward {
//			ct state established,related accept
//			iifname . oifname @inside accept
//			ct status dnat accept                          # only what was published is open
//			drop
//		}
//	}
//
// An accept here ends this table only. Another table may still drop what is
// forwarded, as iptables does after "iptables -P FORWARD DROP": see Droppers.
//
// The package knows addresses and interface names, no containers.
package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Bridge is a network whose traffic passes the table.
type Bridge struct {
	Name       string       // of the interface
	Subnet     netip.Prefix // masked
	ICC        bool         // its containers may talk to each other
	Masquerade bool         // its containers leave with the host's address
}

// Port is a published port.
type Port struct {
	Proto  string         // "tcp", "udp" or "sctp"
	HostIP netip.Addr     // IPv4; unspecified for all addresses of the host
	Host   uint16         // port of the host
	Target netip.AddrPort // IPv4 address and port of the container
	Owner  string         // shown as the element's comment
}

// Table is the nftables table of an instance. It is safe for use by several
// goroutines.
type Table struct {
	name string

	mu   sync.Mutex // guards conn: one transaction at a time
	conn *nftables.Conn
	ns   int // descriptor of the namespace conn is opened in, for opening it again
	set  sets
}

// sets are the parts of the table that change.
type sets struct {
	table                    *nftables.Table
	bridges, inside, subnets *nftables.Set
	ports, portsAt           *nftables.Set
}

// New prepares for the table of that name, which need not exist. netns is a
// descriptor of the network namespace, which must stay open, or 0 for that of
// the process.
func New(name string, netns int) *Table {
	return &Table{name: name, ns: netns, set: newSets(name)}
}

// Close closes the connection to the kernel and leaves the table.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.disconnect()
}

func (t *Table) disconnect() {
	if t.conn != nil {
		t.conn.CloseLasting()
		t.conn = nil
	}
}

// transact runs fill, which queues changes, and has the kernel carry out all of
// them or none.
func (t *Table) transact(doing string, fill func(c *nftables.Conn) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		conn, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(t.ns))
		if err != nil {
			return fmt.Errorf("cannot reach nftables: %w", err)
		}
		t.conn = conn
	}
	err := fill(t.conn)
	if err == nil {
		err = t.conn.Flush()
	}
	if err == nil {
		return nil
	}
	// Answers may be left in the socket, and they would be taken for those
	// to the next transaction.
	t.disconnect()
	var errno unix.Errno
	if errors.As(err, &errno) {
		return &Error{doing, t.name, errno}
	}
	return fmt.Errorf("cannot %s nftables table %s: %w", doing, t.name, err)
}

// Error is a change the kernel refused.
type Error struct {
	Doing, Table string
	Errno        unix.Errno
}

func (e *Error) Error() string {
	text := "cannot " + e.Doing + " nftables table " + e.Table + ": " + e.Errno.Error()
	if e.Errno == unix.EPROTONOSUPPORT || e.Errno == unix.EOPNOTSUPP {
		text += " (is nf_tables in this kernel?)"
	}
	return text
}

// Unwrap returns the errno: ENOENT when the table or an element is missing,
// EEXIST when an element is there with another value.
func (e *Error) Unwrap() error { return e.Errno }

// Replace makes the table anew with exactly these bridges and ports, in one
// transaction: no packet sees it missing.
func (t *Table) Replace(bridges []Bridge, ports []Port) error {
	return t.transact("write", func(c *nftables.Conn) error {
		// Adding a table that exists is no error, deleting one that does not is.
		c.AddTable(t.set.table)
		c.DelTable(t.set.table)
		c.AddTable(t.set.table)
		if err := t.set.create(c, bridges); err != nil {
			return err
		}
		if err := t.set.addPorts(c, ports); err != nil {
			return err
		}
		t.set.addChains(c)
		return nil
	})
}

// Add publishes the ports.
func (t *Table) Add(ports []Port) error {
	if len(ports) == 0 {
		return nil
	}
	return t.transact("add to", func(c *nftables.Conn) error { return t.set.addPorts(c, ports) })
}

// Remove ends the publishing of the ports.
func (t *Table) Remove(ports []Port) error {
	if len(ports) == 0 {
		return nil
	}
	return t.transact("remove from", func(c *nftables.Conn) error { return t.set.delPorts(c, ports) })
}

// Delete removes the table; that there is none is no error.
func (t *Table) Delete() error {
	return t.transact("delete", func(c *nftables.Conn) error {
		c.AddTable(t.set.table)
		c.DelTable(t.set.table)
		return nil
	})
}

// Droppers returns the names of other tables' chains that drop what is
// forwarded unless a rule of theirs accepts it, as "TABLE CHAIN".
func (t *Table) Droppers() ([]string, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(t.ns))
	if err != nil {
		return nil, fmt.Errorf("cannot reach nftables: %w", err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("cannot list nftables chains: %w", err)
	}
	var names []string
	for _, ch := range chains {
		ours := ch.Table.Family == nftables.TableFamilyIPv4 && ch.Table.Name == t.name
		family := ch.Table.Family == nftables.TableFamilyIPv4 || ch.Table.Family == nftables.TableFamilyINet
		if ours || !family || ch.Hooknum == nil || *ch.Hooknum != *nftables.ChainHookForward {
			continue
		}
		if ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop {
			names = append(names, ch.Table.Name+" "+ch.Name)
		}
	}
	return names, nil
}
