package shell

import (
	"reflect"
	"testing"
)

func TestParse(t *testing.T) {
	command := func(s string) *string { return &s }
	for _, c := range []struct {
		args []string
		want options
	}{
		{[]string{"sh"}, options{name: "sh"}},
		{[]string{"sh", "-c", "echo $0", "me", "a"}, options{command: command("echo $0"), name: "me", params: []string{"a"}}},
		{[]string{"sh", "-ec", "x"}, options{command: command("x"), name: "sh", set: []string{"-e"}}},
		{[]string{"sh", "-o", "pipefail", "f", "-x"}, options{name: "sh", file: "f", set: []string{"-o", "pipefail"}, params: []string{"-x"}}},
		{[]string{"-sh", "-il"}, options{name: "-sh", interactive: true}},
	} {
		got, err := parse(c.args)
		if err != nil {
			t.Errorf("%q: %v", c.args, err)
			continue
		}
		if len(got.params) == 0 {
			got.params = nil
		}
		if !reflect.DeepEqual(*got, c.want) {
			t.Errorf("%q: got %+v, want %+v", c.args, *got, c.want)
		}
	}
	if _, err := parse([]string{"sh", "-c"}); err == nil {
		t.Error("-c without a command passed")
	}
}
