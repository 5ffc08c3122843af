package main

import (
	"os"
)

// style is how text is shown on a terminal.
type style struct {
	width int // of a line; 0: unlimited
	color bool
}

// newStyle returns the style of standard output. NO_COLOR and TERM=dumb disable colors.
func newStyle(to console) style {
	if !to.outTerminal {
		return style{}
	}
	return style{width: to.width, color: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// Control sequences of colors.
const (
	bold   = "\x1b[1m"
	faint  = "\x1b[2m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	normal = "\x1b[0m"
)

var colors = map[string]string{
	"active": green, "serving": green, "user.created": green, "user.undeleted": green, "synced": faint,
	"inactive": yellow, "not serving": yellow, "user.status_changed": yellow,
	"suspended": red, "deleted": red, "removed": red, "purged": red, "unreachable": red, "user.deleted": red, "user.purged": red,
}

// paint colors a cell that has one of some words.
func (s style) paint(cell string) string { return s.in(colors[cell], cell) }

// in colors a text.
func (s style) in(color, text string) string {
	if !s.color || color == "" || text == "" {
		return text
	}
	return color + text + normal
}
