package main

import (
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/creack/pty"
)

// programVariable makes the test binary run as userctl.
const programVariable = "USERCTL_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programVariable) != "" {
		main()
	}
	os.Exit(m.Run())
}

// program returns the folder of a program userctl, which is the test binary, and variables to run it.
func program(t *testing.T) (folder string, env []string) {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	folder = t.TempDir()
	if err := os.Symlink(path, folder+"/userctl"); err != nil {
		t.Fatal(err)
	}
	return folder, append(os.Environ(), programVariable+"=1", "PATH="+folder+":"+os.Getenv("PATH"))
}

// terminal is a pseudoterminal with a program.
type terminal struct {
	*lines

	file   *os.File
	exited chan error
}

// startTerminal runs a program on a terminal of 80 columns.
func startTerminal(t *testing.T, dir string, env []string, argv ...string) *terminal {
	t.Helper()
	command := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	command.Dir, command.Env = dir, env
	file, err := pty.StartWithSize(command, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		t.Fatal(err)
	}
	x := &terminal{lines: newLines(), file: file, exited: make(chan error, 1)}
	go func() {
		_, _ = io.Copy(x.lines, file) // until the program closes the terminal
		x.exited <- command.Wait()
	}()
	t.Cleanup(func() { _ = file.Close() })
	return x
}

// send types a text.
func (x *terminal) send(t *testing.T, text string) {
	t.Helper()
	if _, err := x.file.WriteString(text); err != nil {
		t.Fatal(err)
	}
}
