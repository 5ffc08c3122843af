package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

const people = "\xEF\xBB\xBFUsername,email,user_id,tags,metadata.team,status\n" +
	"Ada Lovelace,ada@example.org,7,\"math, engines\",red,\n" +
	"x,x@example.org,,,,\n" +
	"Grace Hopper,grace@example.org,,\"[\"\"a,b\"\"]\",,suspended\n" +
	"too,few\n" +
	"Ada  LOVELACE,other@example.org,,,,\n" +
	"Bad Status,bad@example.org,,,,gone\n"

func TestImportCSV(t *testing.T) {
	s := servertest.Start(t)
	file := servertest.WriteFile(t, t.TempDir(), "people.csv", []byte(people))
	mapping := `column Username       -> username
column email          -> email
column user_id        -> (ignored, the server sets it)
column tags           -> tags
column metadata.team  -> metadata.team
column status         -> status
`
	want := mapping + `line 3: invalid request: user.username: must be at least 3 characters
line 5: has 2 fields, must have 6
line 7: status "gone": must be active, inactive or suspended
6 rows: 3 valid, 3 refused
userctl: 3 of 6 rows were refused
`
	if r := userctl(t, s, "import", file, "--dry-run"); r.err != want || r.status != statusFailed {
		t.Errorf("import --dry-run printed\n%s\nwith exit status %d, want\n%s\nwith %d", r.err, r.status, want, statusFailed)
	}
	if got := must(t, s, "list"); got != "" {
		t.Errorf("import --dry-run created users:\n%s", got)
	}
	want = mapping + `line 3: invalid request: user.username: must be at least 3 characters
line 5: has 2 fields, must have 6
line 6: username already taken
line 7: status "gone": must be active, inactive or suspended
6 rows: 2 created, 0 updated, 0 unchanged, 4 refused
userctl: 4 of 6 rows were refused
`
	if r := userctl(t, s, "import", file); r.err != want || r.status != statusFailed {
		t.Errorf("import printed\n%s\nwith exit status %d, want\n%s\nwith %d", r.err, r.status, want, statusFailed)
	}
	wantUsers := "USER ID             USERNAME      EMAIL              STATUS     TAGS           UPDATED\n" +
		"<USER-ID--------->  Ada Lovelace  ada@example.org    active     math, engines  <TIME-------------->\n" +
		"<USER-ID--------->  Grace Hopper  grace@example.org  suspended  a,b            <TIME-------------->\n"
	if got := mask(must(t, s, "list", "--order-by", "username")); got != wantUsers {
		t.Errorf("the users are\n%s\nwant\n%s", got, wantUsers)
	}
	if left, _ := filepath.Glob(file + "*"); len(left) != 1 {
		t.Errorf("files after the import: %q, want only its input", left)
	}
}

func TestImportConflicts(t *testing.T) {
	s := servertest.Start(t)
	must(t, s, "create", "Ada Lovelace", "ada@example.org")
	file := servertest.WriteFile(t, t.TempDir(), "people.ndjson", []byte(
		`{"username":"Ada Lovelace","email":"ada@example.org","tags":["math"],"status":"USER_STATUS_INACTIVE"}`+"\n"))
	for _, c := range []struct{ policy, want, user string }{
		{"skip", "1 rows: 0 created, 0 updated, 1 unchanged, 0 refused\n", "active  "},
		{"fail", "line 1: username already taken\n1 rows: 0 created, 0 updated, 0 unchanged, 1 refused\nuserctl: 1 of 1 rows were refused\n", "active  "},
		{"update", "1 rows: 0 created, 1 updated, 0 unchanged, 0 refused\n", "inactive  math"},
	} {
		if r := userctl(t, s, "import", file, "--on-conflict", c.policy); r.err != c.want {
			t.Errorf("with %s: %q, want %q", c.policy, r.err, c.want)
		}
		if got := must(t, s, "list"); !strings.Contains(got, "ada@example.org  "+c.user) {
			t.Errorf("with %s: the users are\n%s\nwant %q", c.policy, got, c.user)
		}
	}
}

func TestImportRejectsFiles(t *testing.T) {
	s := servertest.Start(t)
	for text, want := range map[string]string{
		"":                         "the file has no header line; the first line must name the columns",
		"username,emial\n":         `column "emial": must be username, email, status, tags, metadata, metadata.KEY or a field that the server sets`,
		"username,email,email\n":   `two columns are named "email"`,
		"username,tags\n":          "the header line must have the columns username and email",
		"username,email\na,\"b\nc": `record on line 2; parse error on line 3, column 2: extraneous or missing " in quoted-field`,
	} {
		file := servertest.WriteFile(t, t.TempDir(), "people.csv", []byte(text))
		if r := userctl(t, s, "import", file); r.err != "userctl: "+want+"\n" || r.status == statusOK {
			t.Errorf("import of %q: %q, exit status %d, want %q and a failure", text, r.err, r.status, want)
		}
	}
}

// interrupting is a store that cancels a context when it has applied a number of items.
type interrupting struct {
	user.Store

	left   *atomic.Int64
	cancel context.CancelFunc
}

func (i interrupting) Submit(ctx context.Context, batch user.Batch) *user.Pending {
	pending := i.Store.Submit(context.WithoutCancel(ctx), batch)
	before := i.left.Load()
	if after := i.left.Add(-int64(len(batch.Changes))); before > 0 && after <= 0 {
		_, _ = pending.Wait(context.WithoutCancel(ctx))
		i.cancel() // the items are stored, but the client receives no response
	}
	return pending
}

// An import that is interrupted at any item and repeated imports each row once.
func TestImportResumes(t *testing.T) {
	for _, after := range []int64{1, 700, 1001, 1999, 2400} {
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		var left atomic.Int64
		left.Store(after)
		s := servertest.Start(t, servertest.Store(func(store user.Store) user.Store { return interrupting{store, &left, cancel} }))
		var text strings.Builder
		text.WriteString("username,email,status\n")
		for i := range 2500 {
			fmt.Fprintf(&text, "user %d,user%d@example.org,%s\n", i, i, []string{"active", "inactive"}[i%2])
		}
		text.WriteString("y,refused\n")
		file := servertest.WriteFile(t, t.TempDir(), "people.csv", []byte(text.String()))
		args := []string{"import", file, "--server", s.URL()}
		var stderr bytes.Buffer
		if status := run(ctx, args, console{in: strings.NewReader(""), out: &stderr, err: &stderr}); status != statusInterrupted {
			t.Fatalf("after %d items: exit status %d, want %d: %s", after, status, statusInterrupted, &stderr)
		}
		if want := "run the same command again to continue\nuserctl: interrupted\n"; !strings.HasSuffix(stderr.String(), want) {
			t.Errorf("after %d items: %q, want the end %q", after, &stderr, want)
		}
		r := userctl(t, s, "import", file)
		if want := "line 2502: has 2 fields, must have 3\n2501 rows: 2500 created, 0 updated, 0 unchanged, 1 refused\n"; !strings.Contains(r.err, want) {
			t.Errorf("after %d items, the second import: %s, want %q", after, r.err, want)
		}
		rows := strings.Count(must(t, s, "activities", "--limit", "0", "--action", "user.created", "-o", "ndjson"), "\n")
		inactive := strings.Count(must(t, s, "list", "--filter", "status = INACTIVE", "-o", "ndjson"), "\n")
		if rows != 2500 || inactive != 1250 {
			t.Errorf("after %d items: %d users were created, %d inactive, want 2500 and 1250", after, rows, inactive)
		}
	}
}

// A state file is used for its own input only.
func TestImportOfChangedFile(t *testing.T) {
	s := servertest.Start(t)
	dir := t.TempDir()
	file := servertest.WriteFile(t, dir, "people.csv", []byte("username,email\nAda Lovelace,ada@example.org\n"))
	servertest.WriteFile(t, dir, "people.csv.userctl-state", []byte(`{"id":"6f2b6a0e-9a3f-4f7e-8a39-1f3c0d6f4f55","input":"other","rows":1}`))
	r := userctl(t, s, "import", file)
	if want := "belongs to another import; remove it to start from the first row\n"; !strings.HasSuffix(r.err, want) || r.status != statusUsage {
		t.Errorf("%q, exit status %d, want %q, %d", r.err, r.status, want, statusUsage)
	}
}

// What is exported can be imported into another server, and exported again with the same content.
func TestExportRoundTrip(t *testing.T) {
	source := servertest.Start(t)
	people := []string{
		`{"username":"Ada Lovelace","email":"ada@example.org","tags":["a,b"," c","[d]"],"metadata":{"k":"v\r\nw\"","x y":"ü"}}`,
		`{"username":"=1+1","email":"grace@example.org","tags":["one","two"],"status":"USER_STATUS_SUSPENDED"}`,
		`{"username":"\"quoted\", name","email":"q@example.org","status":"USER_STATUS_INACTIVE"}`,
	}
	dir := t.TempDir()
	must(t, source, "import", servertest.WriteFile(t, dir, "in.ndjson", []byte(strings.Join(people, "\n")+"\n\n")))
	for _, format := range []string{"csv", "ndjson"} {
		copied := servertest.Start(t)
		file := filepath.Join(dir, "out."+format)
		must(t, source, "export", file)
		must(t, copied, "import", file)
		again := must(t, copied, "export", "--format", format)
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := withoutServerFields(again), withoutServerFields(string(want)); got != want {
			t.Errorf("%s: the second export is\n%s\nwant\n%s", format, got, want)
		}
	}
}

func withoutServerFields(text string) string {
	lines := strings.Split(mask(text), "\n")
	for i, line := range lines {
		line, _, _ = strings.Cut(line, `,"version"`) // status changes have versions of their own
		lines[i] = line
	}
	slices.Sort(lines) // ids of the same millisecond have a random order
	return strings.Join(lines, "\n")
}

func TestTagsRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		tags := rapid.SliceOf(rapid.StringN(1, 8, -1)).Draw(t, "tags")
		if got, err := parseTags(formatTags(tags)); err != nil || !slices.Equal(got, tags) {
			t.Fatalf("parseTags(%q) = %q, %v, want %q", formatTags(tags), got, err, tags)
		}
	})
}
