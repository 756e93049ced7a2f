package filter

import "testing"

func TestParseBothEncodings(t *testing.T) {
	for _, s := range []string{`{"label":["a=1","b"],"name":["x"]}`, `{"label":{"a=1":true,"b":true,"c":false},"name":{"x":true}}`} {
		args, err := Parse(s)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		if len(args["label"]) != 2 || !args.MatchKV("label", map[string]string{"a": "1", "b": ""}) ||
			args.MatchKV("label", map[string]string{"a": "2", "b": ""}) || !args.ExactMatch("name", "x") || args.ExactMatch("name", "xy") {
			t.Errorf("%s: %v", s, args)
		}
	}
}

func TestBadFiltersAreRefused(t *testing.T) {
	for _, s := range []string{`[`, `[]`, `{"a":1}`, `{"a":[1]}`} {
		if _, err := Parse(s); err == nil {
			t.Errorf("%s: no error", s)
		}
	}
	if err := (Args{"nonsense": {"1"}}).Validate("name"); err == nil {
		t.Error("an unknown filter was allowed")
	}
	if _, err := (Args{"dangling": {"perhaps"}}).Bool("dangling", false); err == nil {
		t.Error("perhaps is no boolean")
	}
	if _, err := (Args{"dangling": {"true", "false"}}).Bool("dangling", false); err == nil {
		t.Error("true and false at once")
	}
}

// Scripts ask for exactly one name with ^name$.
func TestMatchIsARegularExpression(t *testing.T) {
	for _, test := range []struct {
		want, value string
		matches     bool
	}{
		{"web", "my-web-1", true}, {"^web$", "my-web-1", false}, {"^web$", "web", true}, {"^web|^db", "db2", true},
		{"a[", "a[", true}, {"a[", "a", false}, {"", "anything", true},
	} {
		if got := (Args{"name": {test.want}}).Match("name", test.value); got != test.matches {
			t.Errorf("name=%s of %s: %v", test.want, test.value, got)
		}
	}
	if !(Args{}).Match("name", "x") {
		t.Error("no filter does not match")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", `{"label":["a"]}`, `{"label":{"a":true}}`, `{"":[]}`, "null"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		args, err := Parse(s)
		if err == nil {
			args.MatchKV("label", nil)
			args.Validate("label")
		}
	})
}
