package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// versionCommand is userd version.
type versionCommand struct{}

// Run prints the version.
func (versionCommand) Run(to console) error {
	_, err := fmt.Fprintln(to.out, versionLine())
	return err
}

func versionLine() string {
	return fmt.Sprintf("userd %s (%s, %s/%s)", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// version returns the module version, or the commit for a build from a checkout.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown)"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	if commit := revision(); commit != "" {
		return "commit " + commit
	}
	return "(devel)"
}

// revision returns the commit that the program was built from, or "".
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return setting.Value
		}
	}
	return ""
}
