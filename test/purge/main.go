// Command purge takes what an engine with the roots $GANTRY_PURGE_DATA and
// $GANTRY_PURGE_EXEC made on the host outside of them off it again. The
// benchmark runs it when it is done.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/gantry-containers/gantry/internal/enginetest"
)

func main() {
	e := enginetest.At(os.Getenv("GANTRY_PURGE_DATA"), os.Getenv("GANTRY_PURGE_EXEC"))
	if err := e.Purge(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
