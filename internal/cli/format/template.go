// Package format turns rows into what the command line prints: aligned tables,
// Go templates and JSON lines, with the functions, headings and units Docker's
// users have in their scripts.
//
// It knows no command and no API type.
package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/template"
	"unicode"
	"unicode/utf8"
)

// Help is the text of every --format flag of a listing.
const Help = `Format output using a custom template:
'table':            Print output in table format with column headers (default)
'table TEMPLATE':   Print output in table format using the given Go template
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.
Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates`

// InspectHelp is the text of every --format flag that prints one object.
const InspectHelp = `Format output using a custom template:
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.
Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates`

// Parse compiles a template with the functions a user may call in it.
func Parse(text string) (*template.Template, error) {
	t, err := template.New("").Funcs(functions()).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("template parsing error: %w", err)
	}
	return t, nil
}

func functions() template.FuncMap {
	return template.FuncMap{
		"json":     JSON,
		"split":    strings.Split,
		"join":     strings.Join,
		"title":    title,
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"pad":      pad,
		"truncate": truncate,
	}
}

// headings replaces the functions by ones that leave a column heading alone.
func headings() template.FuncMap {
	same := func(s string, _ ...any) string { return s }
	return template.FuncMap{
		"json": same, "split": same, "join": same, "title": same, "lower": same,
		"upper": same, "truncate": same, "pad": pad,
	}
}

// Row is a line of a listing. {{json .}} prints what its argument-less exported
// methods return.
type Row interface{ IsRow() bool }

// JSON is the template function json: one line, with <, > and & as they are
// except in rows.
func JSON(v any) (string, error) {
	if row, ok := v.(Row); ok {
		// Here the three characters are escaped, as Docker does for rows.
		text, err := json.Marshal(Fields(row))
		return string(text), err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSpace(b.String()), nil
}

// title makes the first letter of each word upper case.
func title(s string) string {
	boundary := true
	return strings.Map(func(r rune) rune {
		was := boundary
		boundary = !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' && r != '\''
		if was {
			return unicode.ToTitle(r)
		}
		return r
	}, s)
}

func pad(s string, before, after int) string {
	if s == "" {
		return s
	}
	return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
}

func truncate(s string, n int) string {
	if len(s) < n {
		return s
	}
	return s[:n]
}

// Ellipsis shortens s to n characters, the last of which then is an ellipsis.
func Ellipsis(s string, n int) string {
	if n <= 0 {
		return ""
	}
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	r := []rune(s)
	if n == 1 {
		return string(r[:1])
	}
	return string(r[:n-1]) + "…"
}

// ShortID drops the algorithm of a digest and keeps the first 12 characters.
func ShortID(id string) string {
	if _, rest, ok := strings.Cut(id, ":"); ok {
		id = rest
	}
	if len(id) > 12 {
		id = id[:12]
	}
	return id
}

// Header maps the methods of a row to column headings.
type Header map[string]string

// Label is the heading of a {{.Label "name"}} column: the last part of the
// label's name.
func (Header) Label(name string) string {
	parts := strings.Split(name, ".")
	r := strings.NewReplacer("-", " ", "_", " ")
	return r.Replace(parts[len(parts)-1])
}

// Rows prints rows in the given format: "table", "table TEMPLATE", "json" or a
// template. T is a pointer to a struct whose exported methods without arguments
// are the fields a template may name.
func Rows[T any](w io.Writer, format string, header Header, rows []T) error {
	isTable := strings.HasPrefix(format, "table")
	text := format
	switch {
	case isTable:
		text = strings.TrimPrefix(format, "table")
	case format == "json":
		text = "{{json .}}"
	}
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(strings.Trim(text, " "))
	tmpl, err := Parse(text)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	for _, row := range rows {
		if err := tmpl.Execute(&out, row); err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
		out.WriteByte('\n')
	}
	if !isTable {
		_, err = out.WriteTo(w)
		return err
	}
	tab := NewTable(w, 10, 3)
	if err := tmpl.Funcs(headings()).Execute(tab, header); err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	io.WriteString(tab, "\n")
	if _, err := out.WriteTo(tab); err != nil {
		return err
	}
	return tab.Flush()
}

// Fields collects what a row's argument-less exported methods return, which is
// what {{json .}} prints.
func Fields(row any) map[string]any {
	v := reflect.ValueOf(row)
	t := v.Type()
	m := make(map[string]any, t.NumMethod())
	for i := range t.NumMethod() {
		method := t.Method(i)
		if method.Name == "IsRow" || method.Type.NumIn() != 1 || method.Type.NumOut() != 1 {
			continue
		}
		m[method.Name] = v.Method(i).Call(nil)[0].Interface()
	}
	return m
}
