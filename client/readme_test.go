package client_test

import (
	"os"
	"strings"
	"testing"
)

// The Go code of the README is that of the example.
func TestReadmeQuotesExample(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(readme), "```go\n")
	block, _, _ = strings.Cut(block, "```")
	block = strings.ReplaceAll(block, `"http://localhost:8080"`, `"http://" + address`)
	indented := "\t" + strings.ReplaceAll(strings.TrimSuffix(block, "\n"), "\n", "\n\t")
	indented = strings.ReplaceAll(indented, "\n\t\n", "\n\n")
	if !found || !strings.Contains(string(example), indented) {
		t.Errorf("the README has Go code that is not in the example:\n%s", indented)
	}
}
