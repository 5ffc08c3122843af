package main

import (
	"github.com/schollz/progressbar/v3"
)

// progress is a progress bar with the rate and the time left, shown on a terminal only.
type progress struct{ bar *progressbar.ProgressBar }

// newProgress returns a bar; total -1: unknown.
func newProgress(to console, unit string, total int) *progress {
	return &progress{progressbar.NewOptions(total,
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

func (p *progress) add(n int) { _ = p.bar.Add(n) } // display errors do not matter

func (p *progress) end() { _ = p.bar.Finish() }
