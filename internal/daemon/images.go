package daemon

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/gantry-containers/gantry/internal/server"
)

// listenImages opens the addresses of --serve-images. They are protected as
// those of the API are: by TLS where that is on, with certificates of clients
// where those are verified.
func (d *Daemon) listenImages(ctx context.Context) error {
	c := d.config
	for _, address := range c.ServeImages {
		listeners, err := server.Listen(ctx, "tcp://"+address, server.ListenOptions{
			TLS: c.TLS.Enable, VerifyClients: c.TLS.Verify, CAFile: c.TLS.CAFile, CertFile: c.TLS.Cert, KeyFile: c.TLS.Key,
		})
		if err != nil {
			return err
		}
		d.images = append(d.images, listeners...)
	}
	return nil
}

// serveImages answers neighbours until the server is closed. A pull that is cut
// off then goes on elsewhere: nobody is waited for.
func (d *Daemon) serveImages() *http.Server {
	s := &http.Server{
		Handler:           d.engine.ServeImages(),
		ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
	}
	for _, l := range d.images {
		if d.config.TLS.Verify {
			d.log.Info("images are served to neighbours", "address", l.Addr())
		} else {
			d.log.Warn("images are served to whoever reaches this address, private ones included: protect it with --tlsverify", "address", l.Addr())
		}
		go s.Serve(l) // ends with Close
	}
	return s
}
