package base

// reuseRoom is how many elements a slice that is used again may have room for, however little of it is needed.
const reuseRoom = 4096

// Emptied returns the slice without elements, to be used again; one whose room was hardly used is given back, so that a burst
// is not paid for ever after.
func Emptied[T any](s []T) []T {
	if cap(s) > reuseRoom && len(s) < cap(s)/64 {
		return nil
	}
	clear(s)
	return s[:0]
}

// Without returns the slice without its first n elements, and gives its room back when nothing is left.
func Without[T any](s []T, n int) []T {
	if n == len(s) {
		return nil
	}
	clear(s[:n])
	return s[n:]
}
