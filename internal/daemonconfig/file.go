package daemonconfig

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/pflag"
)

// maxFile bounds the configuration file: nobody writes more by hand.
const maxFile = 1 << 20

// mergeFile sets the flags from the file. A file that was not asked for may be
// missing. A setting given in both places has to be the same in both.
func mergeFile(flags *pflag.FlagSet, path string, asked bool) error {
	settings, err := readFile(path)
	if isMissing(err) && !asked {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read the configuration file: %w", err)
	}
	keys := make([]string, 0, len(settings))
	for key := range settings {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	if err := checkKnown(flags, keys); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var conflicts []string
	for _, key := range keys {
		flag := flags.Lookup(flagOf(key))
		if flag.Changed && flag.Name != "add-runtime" { // runtimes of both places add up
			if flag.Value.String() == "" || flag.Value.String() != asFlag(settings[key]) {
				conflicts = append(conflicts, fmt.Sprintf("%s: (from flag: %s, from file: %v)", key, flag.Value, settings[key]))
			}
			continue
		}
		if err := setFromFile(flag, settings[key]); err != nil {
			return fmt.Errorf("%s: %s: %w", path, key, err)
		}
	}
	if len(conflicts) > 0 {
		return fmt.Errorf("the following directives are specified both as a flag and in the configuration file: %s", strings.Join(conflicts, ", "))
	}
	return nil
}

func checkKnown(flags *pflag.FlagSet, keys []string) error {
	var unknown []string
	for _, key := range keys {
		if name := flagOf(key); name == "" || flags.Lookup(name) == nil {
			unknown = append(unknown, key)
		}
	}
	if len(unknown) > 0 {
		return fmt.Errorf("the following directives don't match any configuration option: %s", strings.Join(unknown, ", "))
	}
	return nil
}

func setFromFile(flag *pflag.Flag, value any) error {
	if v, ok := flag.Value.(fileSetter); ok {
		flag.Changed = true
		return v.setFromFile(value)
	}
	if slice, ok := flag.Value.(pflag.SliceValue); ok {
		items, err := list(value)
		if err != nil {
			return err
		}
		flag.Changed = true
		return slice.Replace(items)
	}
	s, err := scalar(value)
	if err != nil {
		return err
	}
	flag.Changed = true
	return flag.Value.Set(s)
}

// asFlag writes a value of the file as pflag prints that of a flag.
func asFlag(value any) string {
	if items, ok := value.([]any); ok {
		texts := make([]string, len(items))
		for i, item := range items {
			texts[i] = fmt.Sprint(item)
		}
		return "[" + strings.Join(texts, ",") + "]"
	}
	return fmt.Sprint(value)
}

func readFile(path string) (map[string]any, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	settings, err := decode(data, filepath.Ext(path) == ".toml")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return settings, nil
}

// decode parses the text of a configuration file. Some editors put a byte order
// mark before JSON; an empty file holds no settings.
func decode(data []byte, isTOML bool) (map[string]any, error) {
	data = bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	settings := map[string]any{}
	if len(data) == 0 {
		return settings, nil
	}
	if isTOML {
		err := toml.Unmarshal(data, &settings)
		return settings, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&settings); err != nil {
		return nil, fmt.Errorf("invalid JSON: %w", err)
	}
	if dec.More() {
		return nil, errors.New("invalid JSON: unexpected content after the settings")
	}
	return settings, nil
}

// scalar writes a string, number or boolean as a flag would take it.
func scalar(value any) (string, error) {
	switch v := value.(type) {
	case string:
		return v, nil
	case bool, json.Number, int64, float64:
		return fmt.Sprint(v), nil
	}
	return "", fmt.Errorf("%v is neither a string, a number nor a boolean", value)
}

// list returns the texts of an array.
func list(value any) ([]string, error) {
	items, ok := value.([]any)
	if !ok {
		return nil, fmt.Errorf("%v is not a list", value)
	}
	texts := make([]string, len(items))
	for i, item := range items {
		s, err := scalar(item)
		if err != nil {
			return nil, err
		}
		texts[i] = s
	}
	return texts, nil
}
