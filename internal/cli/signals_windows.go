package cli

import (
	"context"
	"os"
	"syscall"
	"time"
)

func signalName(s os.Signal) string {
	switch s {
	case os.Interrupt:
		return "SIGINT"
	case syscall.SIGTERM:
		return "SIGTERM"
	}
	return ""
}

// sizeChanges asks four times a second: Windows has no signal for it.
func sizeChanges(ctx context.Context) <-chan os.Signal {
	ch := make(chan os.Signal)
	go func() {
		defer close(ch)
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				select {
				case ch <- os.Interrupt:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return ch
}

// raise ends us as a signal does that nobody has taken over.
func raise(os.Signal) { os.Exit(2) }

// commonSignals are those the console sends.
func commonSignals() []os.Signal { return []os.Signal{os.Interrupt} }
