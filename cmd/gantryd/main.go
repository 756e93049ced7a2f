// Command gantryd is the daemon: it decides what runs and answers the Engine
// API. Containers do not need it to go on running.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/gantry-containers/gantry/internal/daemon"
	"github.com/gantry-containers/gantry/internal/daemonconfig"
	"github.com/gantry-containers/gantry/internal/engine"
	"github.com/gantry-containers/gantry/internal/registryd"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "registry" { // another role, which knows nothing of the engine
		if err := registryd.Main(os.Args[2:], os.Stdout); err != nil {
			fail(err)
		}
		return
	}
	config, err := daemonconfig.Parse(os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, daemonconfig.ErrHelp):
	case err != nil:
		fail(err)
	case config.ShowVersion:
		fmt.Println("gantryd version", engine.Version)
	case config.ValidateOnly:
		fmt.Println("configuration OK")
	default:
		if err := run(config); err != nil {
			fail(err)
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "gantryd:", err)
	os.Exit(1)
}

// run is the daemon from its start to SIGTERM. A second signal kills it.
func run(config *daemonconfig.Config) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop)
	d, err := daemon.Start(ctx, config)
	if err != nil {
		return err
	}
	return d.Serve(ctx)
}
