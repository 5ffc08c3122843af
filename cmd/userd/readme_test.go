//go:build readme

package main_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadmeCommandsWork runs the command blocks of the README in one shell, in the directory
// of a new server. Each block must succeed and print something. Blocks marked "goes on" are stopped
// after three seconds. It needs curl, buf and grpcurl, hence the build tag.
func TestReadmeCommandsWork(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	dir, bin := t.TempDir(), t.TempDir()
	if err := os.Symlink(build(t, ""), filepath.Join(bin, "userd")); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-o", filepath.Join(bin, "userctl"), "../userctl").CombinedOutput(); err != nil {
		t.Fatalf("build userctl: %v\n%s", err, out)
	}
	run := program{dir: dir}.start(t)
	blocks := shellBlocks(strings.NewReplacer("localhost:8080", run.addr, "localhost:8081", freeAddress(t)).Replace(string(text)))
	if len(blocks) < 6 {
		t.Fatalf("found %d command blocks, want at least 6", len(blocks))
	}
	tools, err := filepath.Abs("../../.tools")
	if err != nil {
		t.Fatal(err)
	}
	script := shellScript(blocks, t.TempDir())
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+tools+"/bin:"+tools+"/node_modules/.bin:"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for i, part := range bytes.Split(out, []byte("::end::"))[:len(blocks)] {
		t.Logf("%s\n%s", blocks[i].commands, part)
		if len(bytes.TrimSpace(part)) == 0 {
			t.Error("block printed nothing")
		}
	}
}

// freeAddress returns an address with a free port.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0") //nolint:noctx // it is closed at once
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

type shellBlock struct {
	commands string
	goesOn   bool
}

func shellBlocks(text string) []shellBlock {
	var blocks []shellBlock
	parts := strings.Split(text, "```sh\n")
	for i, part := range parts[1:] {
		commands, _, _ := strings.Cut(part, "```")
		goesOn := strings.HasSuffix(parts[i], "<!-- goes on -->\n")
		blocks = append(blocks, shellBlock{commands, goesOn})
	}
	return blocks
}

// shellScript joins the blocks into a script that keeps variables and stops at the first error.
func shellScript(blocks []shellBlock, dir string) string {
	var script strings.Builder
	script.WriteString("set -euo pipefail\nexport ID=\n")
	for i, block := range blocks {
		if block.goesOn {
			file := filepath.Join(dir, fmt.Sprint(i))
			if err := os.WriteFile(file, []byte(block.commands), 0o600); err != nil {
				panic(err)
			}
			fmt.Fprintf(&script, "timeout 3 bash %s || [ $? = 124 ]\n", file)
		} else {
			script.WriteString(block.commands)
		}
		script.WriteString("echo ::end::\n")
	}
	return script.String()
}
