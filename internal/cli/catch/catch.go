// Package catch takes over signals at a fraction of what os/signal costs.
//
// os/signal starts three threads with the first signal, and goes to one of them and
// back for each: a third of a millisecond of processor time for a command that lives
// for three. Here a handler writes the signal's number into a pipe, and a goroutine
// reads it. Where that is not to be had, os/signal does it. It can be asked for the
// same signals later: whoever has the handler then, they come once.
package catch

import (
	"os"
	"os/signal"
)

// Notify has the signals sent to ch, as signal.Notify does, and to no channel of an
// earlier call.
func Notify(ch chan<- os.Signal, signals ...os.Signal) {
	if !take(ch, signals) {
		signal.Notify(ch, signals...)
	}
}

// Reset gives the signals back to who had them. Those that os/signal has been asked
// for must be taken back from it before.
func Reset() { giveBack() }
