package client

import (
	"bytes"
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
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
	b.Grow(1 << 10) // enough for most, in one piece
	err := sparse(&b, reflect.ValueOf(s.V))
	return b.Bytes(), err
}

// sparse writes a value as encoding/json does, by itself what most fields are.
func sparse(b *bytes.Buffer, v reflect.Value) error {
	for v.Kind() == reflect.Pointer && !v.IsNil() && plain(v.Type().Elem()) {
		v = v.Elem()
	}
	t := v.Type()
	switch v.Kind() {
	case reflect.Struct:
		if plain(t) {
			b.WriteByte('{')
			if _, err := sparseFields(b, v, false); err != nil {
				return err
			}
			b.WriteByte('}')
			return nil
		}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() != reflect.Uint8 && (t.Kind() == reflect.Array || !v.IsNil()) && plain(t) && (v.Len() == 0 || scalar(t.Elem())) {
			return sparseList(b, v)
		}
	case reflect.Map:
		if !v.IsNil() && plain(t) && (v.Len() == 0 || t.Key().Kind() == reflect.String && scalar(t.Elem())) {
			return sparseMap(b, v)
		}
	default:
		if scalar(t) {
			return sparseScalar(b, v)
		}
	}
	raw, err := json.Marshal(v.Interface())
	b.Write(raw)
	return err
}

// scalar tells whether sparseScalar writes values of a type.
func scalar(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Bool, reflect.String,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return plain(t) && t != reflect.TypeFor[json.Number]()
	case reflect.Struct:
		return t.NumField() == 0 && plain(t) // of a set
	}
	return false
}

func sparseScalar(b *bytes.Buffer, v reflect.Value) error {
	switch {
	case v.Kind() == reflect.Bool:
		b.Write(strconv.AppendBool(b.AvailableBuffer(), v.Bool()))
	case v.Kind() == reflect.String:
		return sparseString(b, v.String())
	case v.Kind() == reflect.Struct:
		b.WriteString("{}")
	case v.CanInt():
		b.Write(strconv.AppendInt(b.AvailableBuffer(), v.Int(), 10))
	default:
		b.Write(strconv.AppendUint(b.AvailableBuffer(), v.Uint(), 10))
	}
	return nil
}

func sparseString(b *bytes.Buffer, s string) error {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			raw, err := json.Marshal(s)
			b.Write(raw)
			return err
		}
	}
	b.WriteByte('"')
	b.WriteString(s)
	b.WriteByte('"')
	return nil
}

func sparseList(b *bytes.Buffer, v reflect.Value) error {
	b.WriteByte('[')
	for i := range v.Len() {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := sparseScalar(b, v.Index(i)); err != nil {
			return err
		}
	}
	b.WriteByte(']')
	return nil
}

func sparseMap(b *bytes.Buffer, v reflect.Value) error {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(x, y reflect.Value) int { return strings.Compare(x.String(), y.String()) })
	b.WriteByte('{')
	for i, k := range keys {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := sparseString(b, k.String()); err != nil {
			return err
		}
		b.WriteByte(':')
		if err := sparseScalar(b, v.MapIndex(k)); err != nil {
			return err
		}
	}
	b.WriteByte('}')
	return nil
}

// sparseFields writes the fields of a struct and of those embedded in it. more
// says that a field is before them, and then whether one is.
func sparseFields(b *bytes.Buffer, v reflect.Value, more bool) (bool, error) {
	for i := range v.NumField() {
		f := v.Field(i)
		if f.IsZero() {
			continue
		}
		t := v.Type().Field(i)
		name, options, _ := strings.Cut(t.Tag.Get("json"), ",")
		if name == "-" || !t.IsExported() {
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

// plain tells whether a type is written as what it is made of.
func plain(t reflect.Type) bool {
	if t.Name() != "" && t.PkgPath() == "" {
		return true // string, bool, …
	}
	p := reflect.PointerTo(t)
	return !p.Implements(reflect.TypeFor[json.Marshaler]()) && !p.Implements(reflect.TypeFor[encoding.TextMarshaler]())
}
