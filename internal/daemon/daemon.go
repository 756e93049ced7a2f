// Package daemon is what gantryd does between its first line and its last: it
// builds the engine from the configuration, puts the server in front of it,
// tells systemd, follows the signals, and stops in order. It knows no container
// and no request.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/gantry-containers/gantry/internal/daemonconfig"
	"github.com/gantry-containers/gantry/internal/engine"
	"github.com/gantry-containers/gantry/internal/server"
	"github.com/gantry-containers/gantry/internal/timerslack"
)

// Daemon is an engine with its API, listening.
type Daemon struct {
	config    *daemonconfig.Config
	log       *slog.Logger
	level     *slog.LevelVar
	engine    *engine.Engine
	server    *server.Server
	listeners []net.Listener
	images    []net.Listener // where neighbours get images
}

// Start builds the engine and opens the listeners. When it returns, a
// client may connect: its request waits until Serve is called.
func Start(ctx context.Context, config *daemonconfig.Config) (*Daemon, error) {
	d := &Daemon{config: config, level: new(slog.LevelVar)}
	d.level.Set(config.LogLevel)
	d.log = newLogger(config.LogFormat, d.level)
	timerslack.Relax()
	slog.SetDefault(d.log) // for the rooms below, which are given none
	if err := writePidfile(config.Pidfile); err != nil {
		return nil, err
	}
	if err := d.start(ctx); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func newLogger(format string, level *slog.LevelVar) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}

// start listens first: that is what keeps a second daemon away from the roots.
func (d *Daemon) start(ctx context.Context) error {
	c := d.config
	for _, host := range c.Hosts {
		listeners, err := server.Listen(ctx, host, server.ListenOptions{
			Group: c.SocketGroup, NeedGroup: c.GroupAsked(),
			TLS: c.TLS.Enable, VerifyClients: c.TLS.Verify,
			CAFile: c.TLS.CAFile, CertFile: c.TLS.Cert, KeyFile: c.TLS.Key,
			Log: d.log,
		})
		if err != nil {
			return err
		}
		d.listeners = append(d.listeners, listeners...)
	}
	if err := d.listenImages(ctx); err != nil {
		return err
	}
	var err error
	d.engine, err = engine.New(ctx, c.Config)
	if err != nil {
		return err
	}
	d.server = server.New(d.engine, server.Options{Version: engine.Version, Debug: c.Debug, Log: d.log})
	return nil
}

// Serve answers until the context ends. Containers are left running.
func (d *Daemon) Serve(ctx context.Context) error {
	defer d.close()
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	go d.reloads(ctx, reload)
	d.log.Info("the API is served", "addresses", d.config.Hosts, "version", engine.Version)
	neighbours := d.serveImages()
	defer neighbours.Close()
	d.notify("READY=1")
	err := d.server.Serve(ctx, d.config.ShutdownTimeout, d.listeners...)
	d.notify("STOPPING=1")
	if serr := d.engine.Shutdown(context.WithoutCancel(ctx)); serr != nil {
		err = errors.Join(err, serr)
	}
	return err
}

func (d *Daemon) notify(state string) {
	if err := server.Notify(state); err != nil {
		d.log.Warn(err.Error())
	}
}

func (d *Daemon) reloads(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
		}
		d.notify("RELOADING=1")
		d.engine.RenewShim(ctx)
		if err := d.reload(); err != nil {
			d.log.Error("the configuration stays as it was", "error", err)
		}
		d.notify("READY=1")
	}
}

// reload takes over what can change while containers run: the log level, the
// labels, and how registries are reached.
func (d *Daemon) reload() error {
	fresh, err := d.config.Reload()
	if err != nil {
		return err
	}
	if err := d.engine.Reload(fresh.Config); err != nil {
		return err
	}
	d.level.Set(fresh.LogLevel)
	d.server.SetDebug(fresh.Debug)
	d.log.Info("the configuration was read again")
	return nil
}

func (d *Daemon) close() {
	for _, l := range append(d.listeners, d.images...) {
		l.Close()
	}
	if d.config.Pidfile != "" {
		_ = os.Remove(d.config.Pidfile) // the next start overwrites it anyway
	}
}

// writePidfile refuses to take over the file of a process that lives.
func writePidfile(path string) error {
	if path == "" {
		return nil
	}
	if data, err := os.ReadFile(path); err == nil {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && pid != os.Getpid() && syscall.Kill(pid, 0) == nil {
			return fmt.Errorf("process %d of %s is still running: stop it, or remove the file", pid, path)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("cannot write the process ID: %w", err)
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		return fmt.Errorf("cannot write the process ID: %w", err)
	}
	return nil
}
