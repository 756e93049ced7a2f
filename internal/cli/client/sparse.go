package client

import (
	"bytes"
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
)

// Sparse is a value that is sent without its fields that are zero, which to the
// engine is the same. encoding/json learns every type within the one it encodes
// before it does; a program that encodes one container and ends pays more for
// that than for anything else it does, and most of those types it never sends.
type Sparse struct{ V any }

// MarshalJSON implements json.Marshaler.
func (s Sparse) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	err := sparse(&b, reflect.ValueOf(s.V))
	return b.Bytes(), err
}

func sparse(b *bytes.Buffer, v reflect.Value) error {
	for v.Kind() == reflect.Pointer && !v.IsNil() && plain(v.Type().Elem()) {
		v = v.Elem()
	}
	if v.Kind() == reflect.Struct && plain(v.Type()) {
		b.WriteByte('{')
		if _, err := sparseFields(b, v, false); err != nil {
			return err
		}
		b.WriteByte('}')
		return nil
	}
	raw, err := json.Marshal(v.Interface())
	b.Write(raw)
	return err
}

// sparseFields writes the fields of a struct and of those embedded in it. more
// says that a field is before them, and then whether one is.
func sparseFields(b *bytes.Buffer, v reflect.Value, more bool) (bool, error) {
	for i := range v.NumField() {
		f, t := v.Field(i), v.Type().Field(i)
		name, options, _ := strings.Cut(t.Tag.Get("json"), ",")
		if f.IsZero() || name == "-" || !t.IsExported() {
			continue
		}
		if k := f.Kind(); (k == reflect.Map || k == reflect.Slice) && f.Len() == 0 && strings.Contains(options, "omitempty") {
			continue
		}
		var err error
		if t.Anonymous && name == "" {
			if f.Kind() == reflect.Pointer {
				f = f.Elem()
			}
			if more, err = sparseFields(b, f, more); err != nil {
				return more, err
			}
			continue
		}
		if name == "" {
			name = t.Name
		}
		if more {
			b.WriteByte(',')
		}
		more = true
		b.WriteString(`"` + name + `":`)
		if err := sparse(b, f); err != nil {
			return more, err
		}
	}
	return more, nil
}

// plain tells whether a struct is written field by field.
func plain(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return t.Kind() == reflect.Struct &&
		!p.Implements(reflect.TypeFor[json.Marshaler]()) && !p.Implements(reflect.TypeFor[encoding.TextMarshaler]())
}
