package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/cli/format"
)

// treeLine is an image, or one platform of it, in `images --tree`.
type treeLine struct {
	names            []string // longest first; a platform has one
	id, disk, packed string
	inUse, missing   bool
	children         []treeLine
}

// treeOf lists images, newest first, each with its platforms.
func treeOf(list []image.Summary, all bool) []treeLine {
	slices.SortStableFunc(list, func(x, y image.Summary) int { return cmp.Compare(y.Created, x.Created) })
	var out []treeLine
	for i := range list {
		img := &list[i]
		if !all && isDangling(img) {
			continue
		}
		l := treeLine{names: slices.Clone(img.RepoTags), id: img.ID, disk: treeSize(img.Size), inUse: img.Containers > 0}
		slices.SortStableFunc(l.names, func(x, y string) int { return len(y) - len(x) })
		packed := int64(0)
		for _, m := range img.Manifests {
			packed += m.Size.Content
			if m.Kind != image.ManifestKindImage || m.ImageData == nil {
				continue // an attestation belongs to the image it is about
			}
			used := len(m.ImageData.Containers) > 0
			l.inUse = l.inUse || used
			l.children = append(l.children, treeLine{
				names: []string{platformName(&m.ImageData.Platform)}, id: m.ID, disk: treeSize(m.Size.Total), packed: treeSize(m.Size.Content),
				inUse: used, missing: !m.Available,
			})
		}
		l.packed = treeSize(packed)
		out = append(out, l)
	}
	return out
}

func treeSize(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

// platformName is os/architecture[/variant].
func platformName(p *ocispec.Platform) string {
	if p.OS == "" {
		return "unknown"
	}
	name := p.OS
	if p.OSVersion != "" {
		name += "(" + p.OSVersion + ")"
	}
	return strings.TrimRight(name+"/"+p.Architecture+"/"+p.Variant, "/")
}

func isDangling(i *image.Summary) bool {
	if len(i.RepoTags) == 0 && len(i.RepoDigests) == 0 {
		return true
	}
	return len(i.RepoTags) == 1 && i.RepoTags[0] == "<none>:<none>" && len(i.RepoDigests) == 1 && i.RepoDigests[0] == "<none>@<none>"
}

// treePrinter aligns the lines in columns. On a terminal it uses colours, and
// leaves columns out that have no room.
type treePrinter struct {
	w       io.Writer
	fancy   bool
	first   int // characters of the first column
	columns []treeColumn
}

type treeColumn struct {
	title string
	width int
	right bool
	value func(*treeLine) string
}

const (
	ansiTitle  = "\x1b[1m"
	ansiName   = "\x1b[34;1m"
	ansiDim    = "\x1b[2m"
	ansiYellow = "\x1b[93m"
	ansiChip   = "\x1b[38;5;0m\x1b[48;5;14m"
	ansiReset  = "\x1b[0m"
	gap        = "   "
)

// printTree prints like Docker's tree view. width is the terminal's, 0 when the
// output is none.
func printTree(w io.Writer, lines []treeLine, width int, fancy bool) {
	p := &treePrinter{w: w, fancy: fancy}
	if width == 0 {
		width = 80
	}
	width = max(width, 20)
	p.layOut(lines, width)
	p.head(width)
	spaced := slices.ContainsFunc(lines, func(l treeLine) bool { return len(l.children) > 0 })
	for i := range lines {
		p.image(&lines[i], spaced)
	}
}

// layOut makes the first column as wide as the names need and the others leave.
func (p *treePrinter) layOut(lines []treeLine, width int) {
	extra := len("Extra")
	p.columns = []treeColumn{
		{"ID", 12, false, func(l *treeLine) string { return format.ShortID(l.id) }},
		{"DISK USAGE", 10, true, func(l *treeLine) string { return l.disk }},
		{"CONTENT SIZE", 12, true, func(l *treeLine) string { return l.packed }},
		{"EXTRA", extra, false, func(l *treeLine) string { return p.chip(l.inUse) }},
	}
	// The mark has a column of its own only when a platform is in use.
	marked := slices.ContainsFunc(lines, func(l treeLine) bool {
		return slices.ContainsFunc(l.children, func(c treeLine) bool { return c.inUse })
	})
	if !marked {
		p.columns[3].value = func(*treeLine) string { return "" }
	}
	p.first = width
	for i, c := range p.columns {
		if p.first-c.width-len(gap) < 12 {
			p.columns = p.columns[:i]
			break
		}
		p.first -= c.width + len(gap)
	}
	widest := len("IMAGE")
	for _, l := range lines {
		for _, name := range l.names {
			widest = max(widest, len(name))
		}
		for _, c := range l.children {
			widest = max(widest, len("└─ ")+len(c.names[0]))
		}
	}
	p.first = min(p.first, widest)
}

func (p *treePrinter) head(width int) {
	fmt.Fprintln(p.w, p.paint(ansiYellow, "WARNING: This is an experimental feature. The output may change and shouldn't be depended on."))
	before, after, chip := " Info ->  ", " In Use ", 1
	if p.fancy {
		before, chip = "Info →   ", 3
	}
	room := width - utf8.RuneCountInString(before+after) - chip
	fmt.Fprintf(p.w, "%s%s%s%s\n\n", strings.Repeat(" ", max(room, 0)), before, p.chip(true), after)
	p.cell(ansiTitle, "IMAGE", p.first, false)
	for _, c := range p.columns {
		io.WriteString(p.w, gap)
		p.cell(ansiTitle, c.title, c.width, c.right)
	}
	fmt.Fprintln(p.w)
}

func (p *treePrinter) image(l *treeLine, spaced bool) {
	switch n := len(l.names); n {
	case 0:
		p.cell(ansiDim, "<untagged>", p.first, false)
	default:
		for _, name := range l.names[:n-1] {
			fmt.Fprintln(p.w, p.paint(ansiName, name))
		}
		p.cell(ansiName, l.names[n-1], p.first, false)
	}
	p.details("", l)
	fmt.Fprintln(p.w)
	for i := range l.children {
		c := &l.children[i]
		branch, style := "├─ ", ""
		if i == len(l.children)-1 {
			branch = "└─ "
		}
		if c.missing {
			style = ansiDim
		}
		p.cell(style, branch+c.names[0], p.first, false)
		p.details(style, c)
		fmt.Fprintln(p.w)
	}
	if spaced {
		fmt.Fprintln(p.w)
	}
}

func (p *treePrinter) details(style string, l *treeLine) {
	for _, c := range p.columns {
		io.WriteString(p.w, gap)
		if c.title == "EXTRA" {
			p.cell("", c.value(l), c.width, false)
			continue
		}
		p.cell(style, c.value(l), c.width, c.right)
	}
}

// cell pads or shortens text to width characters.
func (p *treePrinter) cell(style, text string, width int, right bool) {
	n := utf8.RuneCountInString(text)
	if strings.HasPrefix(text, ansiChip) {
		n = len(" U ")
	}
	if n > width {
		text, n = format.Ellipsis(text, width), width
	}
	pad := strings.Repeat(" ", width-n)
	if right {
		io.WriteString(p.w, pad+p.paint(style, text))
		return
	}
	io.WriteString(p.w, p.paint(style, text)+pad)
}

func (p *treePrinter) paint(style, text string) string {
	if !p.fancy || style == "" || text == "" {
		return text
	}
	return style + text + ansiReset
}

func (p *treePrinter) chip(on bool) string {
	switch {
	case !on:
		return ""
	case p.fancy:
		return ansiChip + " U " + ansiReset
	}
	return "U"
}
