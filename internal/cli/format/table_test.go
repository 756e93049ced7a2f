package format

import (
	"fmt"
	"strings"
	"testing"
)

type countingWriter struct {
	strings.Builder
	writes int
}

func (w *countingWriter) Write(p []byte) (int, error) {
	w.writes++
	return w.Builder.Write(p)
}

// The heading of ps alone was thirty system calls.
func TestTableIsWrittenAtOnce(t *testing.T) {
	var out countingWriter
	tab := NewTable(&out, 10, 3)
	for i := range 20 {
		fmt.Fprintf(tab, "%d\tname\tstate\n", i)
	}
	if out.writes > 0 {
		t.Errorf("%d writes before the table is whole", out.writes)
	}
	if err := tab.Flush(); err != nil {
		t.Fatal(err)
	}
	if out.writes != 1 || !strings.HasPrefix(out.String(), "0         name      state\n1 ") {
		t.Errorf("%d writes:\n%s", out.writes, out.String())
	}
}
