// Package panics converts panics to errors.
package panics

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// Error is a recovered panic.
type Error struct {
	Value any
	Stack []byte
}

// New returns an error with the recovered value and the stack of the panic. It must be called
// by the deferred function that recovers.
func New(value any) *Error { return &Error{Value: value, Stack: debug.Stack()} }

// Error returns the panic value. The stack is not part of the text.
func (e *Error) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Recover sets err if the goroutine panics. It must be deferred directly.
func Recover(err *error) {
	if value := recover(); value != nil {
		*err = New(value)
	}
}

// Catch returns the error of do, or its panic as an error.
func Catch(do func() error) (err error) {
	defer Recover(&err)
	return do()
}

// Stack returns the stack of the panic in err, or "".
func Stack(err error) string {
	if e := (*Error)(nil); errors.As(err, &e) {
		return string(e.Stack)
	}
	return ""
}
