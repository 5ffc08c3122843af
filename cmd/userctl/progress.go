package main

import (
	"github.com/schollz/progressbar/v3"
)

// progress is a progress bar with the rate and the time left, shown on a terminal only.
type progress struct {
	bar   *progressbar.ProgressBar
	shown int
}

// newProgress returns a bar; total -1: unknown.
func newProgress(to console, unit string, total int) *progress {
	return &progress{bar: progressbar.NewOptions(total,
		progressbar.OptionSetWriter(to.err),
		progressbar.OptionSetVisibility(to.errTerminal),
		progressbar.OptionSetDescription(unit),
		progressbar.OptionShowCount(),
		progressbar.OptionShowIts(),
		progressbar.OptionSetItsString(unit),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionClearOnFinish(),
	)}
}

// progressStep is the number after which the bar changes: its library takes as long as several rows.
const progressStep = 500

// set shows a number.
func (p *progress) set(n int) {
	if n-p.shown >= progressStep {
		_ = p.bar.Set(n) // display errors do not matter
		p.shown = n
	}
}

func (p *progress) end() { _ = p.bar.Finish() }
