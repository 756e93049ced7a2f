package shim

// detachKeys finds the sequence of keys that detaches a terminal, as Docker
// does: a beginning of it is held back until it is known whether the rest
// follows; when it does not, all of it is input.
type detachKeys struct {
	sequence []byte // empty: nothing detaches
	typed    int    // how much of it was typed and is held back
}

// filter returns the input in p. detached says that the sequence was completed;
// what follows it is nobody's.
func (d *detachKeys) filter(p []byte) (input []byte, detached bool) {
	if len(d.sequence) == 0 {
		return p, false
	}
	if d.typed == 0 && !d.begins(p) {
		return p, false
	}
	input = make([]byte, 0, len(p)+d.typed)
	for _, b := range p {
		if b == d.sequence[d.typed] {
			if d.typed++; d.typed == len(d.sequence) {
				d.typed = 0
				return input, true
			}
			continue
		}
		input = append(input, d.sequence[:d.typed]...)
		d.typed = 0
		input = append(input, b)
	}
	return input, false
}

func (d *detachKeys) begins(p []byte) bool {
	for _, b := range p {
		if b == d.sequence[0] {
			return true
		}
	}
	return false
}
