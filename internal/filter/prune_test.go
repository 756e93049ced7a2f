package filter

import (
	"testing"
	"time"
)

func TestUntil(t *testing.T) {
	now := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	for s, want := range map[string]time.Time{
		"90m":                       now.Add(-90 * time.Minute),
		"1714979289":                time.Unix(1714979289, 0),
		"1714979289.5":              time.Unix(1714979289, 5e8),
		"2024-01-02T03:04:05.6Z":    time.Date(2024, 1, 2, 3, 4, 5, 6e8, time.UTC),
		"2024-01-02T03:04:05+01:00": time.Date(2024, 1, 2, 2, 4, 5, 0, time.UTC),
		"2024-01-02T03:04:05":       time.Date(2024, 1, 2, 3, 4, 5, 0, time.Local),
		"2024-01-02T03:04Z":         time.Date(2024, 1, 2, 3, 4, 0, 0, time.UTC),
		"2024-01-02T03":             time.Date(2024, 1, 2, 3, 0, 0, 0, time.Local),
		"2024-01-02Z":               time.Date(2024, 1, 2, 0, 0, 0, 0, time.UTC),
		"2024-01-02":                time.Date(2024, 1, 2, 0, 0, 0, 0, time.Local),
	} {
		if got, err := (Args{"until": {s}}).Until(now); err != nil || !got.Equal(want) {
			t.Errorf("%s is %v, %v; want %v", s, got, err, want)
		}
	}
	if got, err := (Args{}).Until(now); err != nil || !got.IsZero() {
		t.Errorf("without the filter: %v, %v", got, err)
	}
	for _, bad := range []Args{{"until": {"yesterday"}}, {"until": {"1h", "2h"}}, {"until": {""}}} {
		if _, err := bad.Until(now); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}

func TestMatchLabels(t *testing.T) {
	labels := map[string]string{"a": "1", "b": "2"}
	for _, test := range []struct {
		args Args
		want bool
	}{
		{Args{}, true},
		{Args{"label": {"a", "b=2"}}, true},
		{Args{"label": {"a=2"}}, false},
		{Args{"label!": {"a=2"}}, true},
		{Args{"label!": {"a"}}, false},
		{Args{"label!": {"a", "c"}}, true},
		{Args{"label": {"a"}, "label!": {"b"}}, false},
	} {
		if got := test.args.MatchLabels(labels); got != test.want {
			t.Errorf("%v: %v", test.args, got)
		}
	}
}
