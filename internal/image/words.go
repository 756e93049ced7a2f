package image

import (
	"errors"
	"slices"
	"strings"
)

// splitWords splits the arguments of an instruction at blanks that are neither
// quoted nor escaped. Quotes and escapes stay in the words, of which there is
// at least one.
func splitWords(s string) (list []string, err error) {
	var word strings.Builder
	var quote byte
	for i := 0; i < len(s); i++ {
		ch := s[i]
		switch {
		case ch == '\\' && quote != '\'' && i+1 < len(s):
			word.WriteByte(ch)
			i++
			word.WriteByte(s[i])
			continue
		case quote != 0 && ch == quote:
			quote = 0
		case quote == 0 && (ch == '"' || ch == '\''):
			quote = ch
		case quote == 0 && (ch == ' ' || ch == '\t'):
			if word.Len() > 0 {
				list = append(list, word.String())
				word.Reset()
			}
			continue
		}
		word.WriteByte(ch)
	}
	if quote != 0 {
		return nil, errors.New("unexpected end of statement while looking for matching quote")
	}
	if word.Len() > 0 {
		list = append(list, word.String())
	}
	if len(list) == 0 {
		return nil, errors.New("nothing is there")
	}
	return list, nil
}

// unquote takes quotes and escapes out of a word, and puts in variables of the
// environment: $NAME, ${NAME}, ${NAME:-default}, ${NAME:+alternative}. Nothing
// is put in between single quotes.
func unquote(s string, env []string) string {
	var out strings.Builder
	var quote byte
	for i := 0; i < len(s); i++ {
		ch := s[i]
		switch {
		case ch == '\\' && quote != '\'' && i+1 < len(s):
			i++
			if quote == '"' && s[i] != '"' && s[i] != '\\' && s[i] != '$' {
				out.WriteByte('\\')
			}
			out.WriteByte(s[i])
		case quote != 0 && ch == quote:
			quote = 0
		case quote == 0 && (ch == '"' || ch == '\''):
			quote = ch
		case ch == '$' && quote != '\'':
			value, n := variable(s[i:], env)
			out.WriteString(value)
			i += n - 1
		default:
			out.WriteByte(ch)
		}
	}
	return out.String()
}

// variable reads what begins with a dollar, and tells how long it is.
func variable(s string, env []string) (value string, n int) {
	if strings.HasPrefix(s, "${") {
		end := strings.IndexByte(s, '}')
		if end < 0 {
			return s, len(s)
		}
		inner := s[2:end]
		name := inner[:nameLength(inner)]
		value = lookupEnv(env, name)
		switch op, word := inner[len(name):], ""; {
		case strings.HasPrefix(op, ":-"):
			if word = op[2:]; value == "" {
				value = unquote(word, env)
			}
		case strings.HasPrefix(op, ":+"):
			if word = op[2:]; value != "" {
				value = unquote(word, env)
			}
		}
		return value, end + 1
	}
	length := nameLength(s[1:])
	if length == 0 {
		return "$", 1
	}
	return lookupEnv(env, s[1:1+length]), 1 + length
}

func nameLength(s string) int {
	for i := 0; i < len(s); i++ {
		ch := s[i]
		if ch != '_' && (ch < 'a' || ch > 'z') && (ch < 'A' || ch > 'Z') && (i == 0 || ch < '0' || ch > '9') {
			return i
		}
	}
	return len(s)
}

func lookupEnv(env []string, name string) string {
	i := slices.IndexFunc(env, func(pair string) bool { return strings.HasPrefix(pair, name+"=") })
	if i < 0 {
		return ""
	}
	return env[i][len(name)+1:]
}
