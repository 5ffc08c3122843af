package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/servertest"
)

var update = flag.Bool("update", false, "write the transcripts of testdata")

// Each file of testdata is a transcript of commands on a new server: "$ " and the arguments, then the output, the error
// output, and the exit status if it is not 0.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d transcripts, %v; want at least 3", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := servertest.Start(t)
			config := filepath.Join(t.TempDir(), "config.yaml")
			t.Setenv("USERCTL_CONFIG", config)
			var got strings.Builder
			for line := range strings.Lines(string(want)) {
				command, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "$ ")
				if !ok {
					continue
				}
				r := userctl(t, s, splitArgs(command)...)
				fmt.Fprintf(&got, "$ %s\n%s%s", command, r.out, strings.ReplaceAll(r.err, config, "<CONFIG>"))
				if r.status != statusOK {
					fmt.Fprintf(&got, "[exit status %d]\n", r.status)
				}
			}
			if *update {
				if err := os.WriteFile(file, []byte(got.String()), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			compareLines(t, got.String(), string(want))
		})
	}
}

// splitArgs splits arguments at spaces outside of single quotes.
func splitArgs(line string) []string {
	var args []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			args = append(args, part)
		} else {
			args = append(args, strings.Fields(part)...)
		}
	}
	return args
}

// compareLines reports the first different line with its command.
func compareLines(t *testing.T, got, want string) {
	t.Helper()
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(want, "\n")
	var command string
	for i := range max(len(gotLines), len(wantLines)) {
		g, w := lineAt(gotLines, i), lineAt(wantLines, i)
		if g != w {
			t.Errorf("line %d, after %q:\ngot  %q\nwant %q", i+1, command, g, w)
			return
		}
		if strings.HasPrefix(w, "$ ") {
			command = w
		}
	}
}

func lineAt(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(end)"
}
