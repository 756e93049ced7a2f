package runflags

import (
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"
)

// List is a flag that may be given several times.
type List struct {
	values []string
	check  func(string) (string, error)
}

// NewList makes a list whose values pass through check, which may be nil.
func NewList(check func(string) (string, error)) *List { return &List{check: check} }

// Values are in the order given; nil when there are none.
func (l *List) Values() []string { return l.values }

// Set implements pflag.Value.
func (l *List) Set(v string) error {
	if l.check != nil {
		var err error
		if v, err = l.check(v); err != nil {
			return err
		}
	}
	l.values = append(l.values, v)
	return nil
}

// String implements pflag.Value.
func (l *List) String() string {
	if len(l.values) == 0 {
		return ""
	}
	return fmt.Sprint(l.values)
}

// Type implements pflag.Value.
func (l *List) Type() string { return "list" }

func (l *List) orEmpty() []string {
	if l.values == nil {
		return []string{}
	}
	return l.values
}

// Map is a flag of key=value pairs.
type Map struct {
	values map[string]string
	check  func(string) (string, error)
}

// Values are the pairs; never nil.
func (m *Map) Values() map[string]string {
	if m.values == nil {
		m.values = map[string]string{}
	}
	return m.values
}

// Set implements pflag.Value.
func (m *Map) Set(v string) error {
	if m.check != nil {
		var err error
		if v, err = m.check(v); err != nil {
			return err
		}
	}
	k, val, _ := strings.Cut(v, "=")
	m.Values()[k] = val
	return nil
}

// String implements pflag.Value.
func (m *Map) String() string {
	if len(m.values) == 0 {
		return ""
	}
	return fmt.Sprint(m.values)
}

// Type implements pflag.Value.
func (m *Map) Type() string { return "map" }

// Bytes is a size such as 64m, in bytes.
type Bytes int64

// Set implements pflag.Value.
func (b *Bytes) Set(v string) error {
	n, err := units.RAMInBytes(v)
	*b = Bytes(n)
	return err
}

// String implements pflag.Value.
func (b *Bytes) String() string {
	if *b == 0 {
		return "0"
	}
	return units.BytesSize(float64(*b))
}

// Type implements pflag.Value.
func (b *Bytes) Type() string { return "bytes" }

// SwapBytes is a size in bytes, or -1 for no limit.
type SwapBytes int64

// Set implements pflag.Value.
func (b *SwapBytes) Set(v string) error {
	if v == "-1" {
		*b = -1
		return nil
	}
	return (*Bytes)(b).Set(v)
}

// String implements pflag.Value.
func (b *SwapBytes) String() string {
	if *b == -1 {
		return "-1"
	}
	return (*Bytes)(b).String()
}

// Type implements pflag.Value.
func (b *SwapBytes) Type() string { return "bytes" }

// CPUs is a number of processors, in billionths.
type CPUs int64

// Set implements pflag.Value.
func (c *CPUs) Set(v string) error {
	r, ok := new(big.Rat).SetString(v)
	if !ok {
		return fmt.Errorf("failed to parse %v as a rational number", v)
	}
	nano := r.Mul(r, big.NewRat(1e9, 1))
	if !nano.IsInt() {
		return errors.New("value is too precise")
	}
	*c = CPUs(nano.Num().Int64())
	return nil
}

// String implements pflag.Value.
func (c *CPUs) String() string {
	if *c == 0 {
		return ""
	}
	return big.NewRat(int64(*c), 1e9).FloatString(3)
}

// Type implements pflag.Value.
func (c *CPUs) Type() string { return "decimal" }

// parsed is a repeatable flag whose values become a T.
type parsed[T any] struct {
	values []T
	name   string
	parse  func(string) (T, error)
}

func (p *parsed[T]) Set(v string) error {
	t, err := p.parse(v)
	if err != nil {
		return err
	}
	p.values = append(p.values, t)
	return nil
}

func (p *parsed[T]) String() string { return "" }
func (p *parsed[T]) Type() string   { return p.name }

// hide takes flags out of the help: older spellings and other systems' flags.
func hide(fs *pflag.FlagSet, names ...string) {
	for _, n := range names {
		fs.Lookup(n).Hidden = true
	}
}

// hasFold says whether any of values is s, without regard to case.
func hasFold(values []string, s string) bool {
	return slices.ContainsFunc(values, func(v string) bool { return strings.EqualFold(v, s) })
}

// key is what stands before the equals sign.
func key(s string) string {
	k, _, _ := strings.Cut(s, "=")
	return k
}

// Pairs splits key=value strings; a key without a value gets an empty one. The
// map is never nil.
func Pairs(values []string) map[string]string {
	m := make(map[string]string, len(values))
	for _, v := range values {
		k, val, _ := strings.Cut(v, "=")
		m[k] = val
	}
	return m
}
