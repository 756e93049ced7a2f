// Command httpd serves files over HTTP, in the foreground:
// httpd [-p [ADDRESS:]PORT] [-h DIRECTORY] [-v].
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	port := flag.String("p", "80", "port, or address and port, to listen on")
	dir := flag.String("h", ".", "directory to serve")
	verbose := flag.Bool("v", false, "print every request")
	flag.Bool("f", true, "stay in the foreground, as it always does")
	flag.Parse()
	if err := serve(*port, *dir, *verbose); err != nil {
		fmt.Fprintf(os.Stderr, "httpd: %v\n", err)
		os.Exit(1)
	}
}

func serve(address, dir string, verbose bool) error {
	if !strings.Contains(address, ":") {
		address = ":" + address
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	handler := http.FileServerFS(root.FS())
	server := &http.Server{
		ReadHeaderTimeout: 30 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if verbose {
				fmt.Printf("%s %s %s\n", r.RemoteAddr, r.Method, r.URL.Path)
			}
			handler.ServeHTTP(w, r)
		}),
	}
	// As process 1 it is not ended by a signal it does not ask for.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
