package mount

import "strings"

// EscapeLower escapes one directory for use in overlayfs's lowerdir option,
// where a colon separates directories and a comma ends the option.
func EscapeLower(dir string) string { return escape(dir, `\:,`) }

// EscapeDir escapes a directory for upperdir and workdir, where only a comma
// and the backslash mean something.
func EscapeDir(dir string) string { return escape(dir, `\,`) }

func escape(s, special string) string {
	if !strings.ContainsAny(s, special) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if strings.IndexByte(special, s[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Unescape undoes EscapeDir and, for one directory, EscapeLower.
func Unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// SplitLower splits the value of a lowerdir option at its unescaped colons and
// returns the directories unescaped, topmost first.
func SplitLower(value string) []string {
	var dirs []string
	start := 0
	for i := 0; i < len(value); i++ {
		switch value[i] {
		case '\\':
			i++
		case ':':
			dirs = append(dirs, Unescape(value[start:i]))
			start = i + 1
		}
	}
	return append(dirs, Unescape(value[start:]))
}
