package format

import (
	"bufio"
	"io"
	"text/tabwriter"
)

// Table aligns what is written to it and passes it on when it is flushed.
type Table struct {
	*tabwriter.Writer
	out *bufio.Writer
}

// NewTable aligns tab-separated cells into columns at least min characters wide
// and padding apart.
func NewTable(w io.Writer, min, padding int) *Table {
	// A tabwriter writes every cell, and every padding, by itself.
	out := bufio.NewWriter(w)
	return &Table{tabwriter.NewWriter(out, min, 1, padding, ' ', 0), out}
}

// Flush writes the table. Its errors are those of the writer below.
func (t *Table) Flush() error {
	if err := t.Writer.Flush(); err != nil {
		return err
	}
	return t.out.Flush()
}
