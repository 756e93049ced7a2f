package image

import (
	"context"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Watermark is a level of disk use: a part of the file system that images are
// on, in percent, or what images take there, in bytes. The zero value is none.
type Watermark struct {
	Percent float64
	Bytes   int64
}

// ParseWatermark reads "85%" or a size like "50GB". The empty string is none.
func ParseWatermark(s string) (w Watermark, err error) {
	if s == "" {
		return w, nil
	}
	if number, ok := strings.CutSuffix(s, "%"); ok {
		w.Percent, err = strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || !(w.Percent > 0 && w.Percent <= 100) {
			return Watermark{}, errs.InvalidArgument("%q is no level of disk use: a percentage is above 0%% and at most 100%%", s)
		}
		return w, nil
	}
	if w.Bytes, err = units.FromHumanSize(s); err != nil || w.Bytes <= 0 {
		return Watermark{}, errs.InvalidArgument(`%q is no level of disk use: it is a percentage like "85%%" or a size like "50GB"`, s)
	}
	return w, nil
}

// IsZero tells whether it is no watermark.
func (w Watermark) IsZero() bool { return w == Watermark{} }

// lowered is where collection ends when only its beginning was told.
func (w Watermark) lowered() Watermark { return Watermark{w.Percent * 0.9, w.Bytes / 10 * 9} }

// Watermarks is between which levels images are collected: above High, down to
// Low. Both are of one kind. Without a High they never are; without a Low it is
// nine tenths of High.
type Watermarks struct{ High, Low Watermark }

// Check fails with ErrInvalidArgument for watermarks that are no pair.
func (w *Watermarks) Check() error {
	switch {
	case w.High.IsZero() && !w.Low.IsZero():
		return errs.InvalidArgument("a low watermark of disk use needs a high one")
	case w.High.IsZero():
		return nil
	case w.Low.IsZero():
		w.Low = w.High.lowered()
	case (w.Low.Percent > 0) != (w.High.Percent > 0):
		return errs.InvalidArgument("the low and the high watermark of disk use must both be percentages or both be sizes")
	}
	if w.Low.Percent > w.High.Percent || w.Low.Bytes > w.High.Bytes {
		return errs.InvalidArgument("the low watermark of disk use is above the high one")
	}
	return nil
}

// level is how full the disk is, and between which levels it is to be, in bytes.
type level struct{ used, total, high, low int64 }

func (m *Manager) level(ctx context.Context, w Watermarks) (l level, err error) {
	if w.High.Percent > 0 {
		if l.used, l.total, err = m.opts.Content.FileSystem(); err != nil {
			return l, err
		}
		l.high, l.low = share(l.total, w.High.Percent), share(l.total, w.Low.Percent)
		return l, nil
	}
	d, err := m.measure(ctx)
	if err != nil {
		return l, err
	}
	l.used, l.high, l.low = d.total, w.High.Bytes, w.Low.Bytes
	return l, nil
}

func share(total int64, percent float64) int64 { return int64(float64(total) * percent / 100) }
