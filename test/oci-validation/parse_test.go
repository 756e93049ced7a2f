package validation

import "testing"

func TestParseTAP(t *testing.T) {
	o := parseTAP("TAP version 13\nok 1 - a\nnot ok 2 - b\n  ---\n  \"stdout\": \"not ok 9\"\nok 3 # SKIP c\nnot ok 4 # TODO d\n1..4\n")
	if o.passed != 1 || o.failed != 1 || o.skipped != 2 || len(o.notOK) != 1 || o.clean() {
		t.Errorf("%+v", o)
	}
}

func TestWorse(t *testing.T) {
	bad, broken, good := outcome{failed: 2}, outcome{passed: 9, broken: "x"}, outcome{passed: 1}
	for _, tc := range []struct {
		a, b outcome
		want bool
	}{{bad, good, true}, {good, bad, false}, {broken, bad, true}, {bad, broken, false}, {broken, broken, false}, {good, good, false}} {
		if got := tc.a.worse(tc.b); got != tc.want {
			t.Errorf("%v worse than %v: %v", tc.a, tc.b, got)
		}
	}
}
