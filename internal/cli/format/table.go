package format

import (
	"io"
	"text/tabwriter"
)

// NewTable aligns tab-separated cells into columns at least min characters wide
// and padding apart.
func NewTable(w io.Writer, min, padding int) *tabwriter.Writer {
	return tabwriter.NewWriter(w, min, 1, padding, ' ', 0)
}
