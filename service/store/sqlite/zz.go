package sqlite
import "unsafe"
func ptr(p uintptr) unsafe.Pointer { return unsafe.Pointer(p) }
