package format

// NaturalLess orders names as a person would: web2 before web10.
func NaturalLess(a, b string) bool {
	for len(a) > 0 && len(b) > 0 {
		if !digit(a[0]) || !digit(b[0]) {
			if a[0] != b[0] {
				return a[0] < b[0]
			}
			a, b = a[1:], b[1:]
			continue
		}
		na, resta := number(a)
		nb, restb := number(b)
		if len(na) != len(nb) {
			return len(na) < len(nb)
		}
		if na != nb {
			return na < nb
		}
		if len(a)-len(resta) != len(b)-len(restb) { // 01 and 1
			return len(a)-len(resta) < len(b)-len(restb)
		}
		a, b = resta, restb
	}
	return len(a) < len(b)
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// number splits off the digits in front, without leading zeros.
func number(s string) (digits, rest string) {
	i := 0
	for i < len(s) && digit(s[i]) {
		i++
	}
	z := 0
	for z < i-1 && s[z] == '0' {
		z++
	}
	return s[z:i], s[i:]
}
