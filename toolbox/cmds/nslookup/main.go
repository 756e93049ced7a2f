// Command nslookup asks the DNS: nslookup NAME|ADDRESS [SERVER].
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: nslookup NAME|ADDRESS [SERVER]")
		os.Exit(1)
	}
	resolver := &net.Resolver{PreferGo: true}
	if len(os.Args) > 2 {
		server := os.Args[2]
		if _, _, err := net.SplitHostPort(server); err != nil {
			server = net.JoinHostPort(server, "53")
		}
		fmt.Printf("Server:\t%s\n\n", server)
		resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, server)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := look(ctx, resolver, os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "nslookup: %v\n", err)
		os.Exit(1)
	}
}

func look(ctx context.Context, r *net.Resolver, name string) error {
	if net.ParseIP(name) != nil {
		names, err := r.LookupAddr(ctx, name)
		for _, n := range names {
			fmt.Printf("%s\tname = %s\n", name, n)
		}
		return err
	}
	addrs, err := r.LookupHost(ctx, name)
	for _, a := range addrs {
		fmt.Printf("Name:\t%s\nAddress: %s\n", name, a)
	}
	return err
}
