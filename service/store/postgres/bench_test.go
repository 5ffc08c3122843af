package postgres

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/store/pgtest"
	"github.com/yourorg/userservice/service/user"
)

// BenchmarkCreate creates users by callers that are distributed over nodes, also with a latency to the database, and for
// comparison by pgbench, where each caller has a connection.
func BenchmarkCreate(b *testing.B) {
	for _, latency := range []time.Duration{0, time.Millisecond} {
		for _, callers := range []int{1, 64, 512} {
			for _, nodes := range []int{1, 2, 3} {
				if callers < nodes {
					continue
				}
				b.Run(fmt.Sprintf("latency=%v/callers=%d/nodes=%d", latency, callers, nodes), func(b *testing.B) {
					benchmarkCreate(b, latency, nodes, callers)
				})
			}
			b.Run(fmt.Sprintf("latency=%v/callers=%d/pgbench", latency, callers), func(b *testing.B) {
				benchmarkPgbench(b, latency, callers)
			})
		}
	}
}

// pgbenchScript does in one statement what a transaction of one create does: it advances the counter, inserts a user with
// the 24 entries of its index, and appends a row.
const pgbenchScript = `\set id random(1, 9000000000000000000)
WITH counter AS (UPDATE meta SET position = position + 1 RETURNING position),
inserted AS (INSERT INTO users (user_id, username, username_key, email, email_key, status, status_time, status_position,
	created_at, updated_at, version, last_activity_id)
	SELECT :id::bigint, 'user' || :id::bigint, int8send(:id::bigint), 'user' || :id::bigint || '@example.org', int8send(:id::bigint), 1, 0, position,
	:id::bigint, 0, 1, position FROM counter),
indexed AS (INSERT INTO terms SELECT (:id::bigint / n) % 5000 * 24 + n, :id::bigint FROM generate_series(1, 24) AS n)
INSERT INTO log SELECT position, :id::bigint, 0, 'user.created', '\x00' FROM counter;
`

var pgbenchRate = regexp.MustCompile(`tps = ([0-9.]+)`)

func benchmarkPgbench(b *testing.B, latency time.Duration, callers int) {
	url := pgtest.Database(b)
	s, err := Open(b.Context(), Options{URL: url}) // creates the tables
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		b.Fatal(err)
	}
	if latency > 0 {
		url = delayed(b, url, latency)
	}
	script := filepath.Join(b.TempDir(), "create.sql")
	if err := os.WriteFile(script, []byte(pgbenchScript), 0o600); err != nil {
		b.Fatal(err)
	}
	program, err := pgtest.Program("pgbench")
	if err != nil {
		b.Fatal(err)
	}
	out, err := exec.CommandContext(b.Context(), program, "-n", "-M", "prepared", "-f", script, "-j", "2", "-c", strconv.Itoa(callers),
		"-t", strconv.Itoa(max(1, b.N/callers)), url).CombinedOutput()
	found := pgbenchRate.FindSubmatch(out)
	if err != nil || found == nil {
		b.Fatalf("pgbench: %v\n%s", err, out)
	}
	rate, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(rate, "creates/s")
}

func benchmarkCreate(b *testing.B, latency time.Duration, nodes, callers int) {
	url := pgtest.Database(b)
	if latency > 0 {
		url = delayed(b, url, latency)
	}
	var commits atomic.Int64
	var stores []*Store
	for range nodes {
		s, err := Open(b.Context(), Options{URL: url, OnCommit: func(CommitStats) { commits.Add(1) }})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = s.Close() })
		stores = append(stores, s)
	}
	var next atomic.Int64
	var running sync.WaitGroup
	b.ResetTimer()
	for c := range callers {
		running.Go(func() {
			for {
				i := next.Add(1)
				if i > int64(b.N) {
					return
				}
				op, err := user.NewCreate(user.User{Username: fmt.Sprint("user", i), Email: fmt.Sprintf("user%d@example.org", i)})
				if err == nil {
					_, err = user.ApplyOne(user.WithCaller(b.Context(), fmt.Sprint(c)), stores[c%nodes], user.Change{Op: op})
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creates/s")
	b.ReportMetric(float64(commits.Load())/b.Elapsed().Seconds(), "commits/s")
}

// delayed returns the URL of a proxy that delays what the database sends.
func delayed(b *testing.B, url string, latency time.Duration) string {
	b.Helper()
	network, address, target := pgtest.Proxied(b, url)
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // of a benchmark
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial(network, address) //nolint:noctx // of a benchmark
			if err != nil {
				_ = client.Close()
				return
			}
			go func() { _, _ = io.Copy(server, client); _ = server.Close() }()
			go delay(client, server, latency)
		}
	}()
	return fmt.Sprintf(target, listener.Addr())
}

// delay copies what it reads after a latency.
func delay(to, from net.Conn, latency time.Duration) {
	type packet struct {
		due   time.Time
		bytes []byte
	}
	packets := make(chan packet, 1024)
	go func() {
		for p := range packets {
			time.Sleep(time.Until(p.due))
			_, _ = to.Write(p.bytes)
		}
		_ = to.Close()
	}()
	defer close(packets)
	for {
		buffer := make([]byte, 64<<10)
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		packets <- packet{time.Now().Add(latency), buffer[:n]}
	}
}

// BenchmarkDelivery measures the time from the result of a write on one node until another node has published it.
func BenchmarkDelivery(b *testing.B) {
	url := pgtest.Database(b)
	var stores [2]*Store
	for i := range stores {
		s, err := Open(b.Context(), Options{URL: url})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = s.Close() })
		stores[i] = s
	}
	published := make(chan int64, 1024)
	stores[1].Observe(func(c user.Commit) { published <- c.Head.Position })
	var times []time.Duration
	for i := 0; b.Loop(); i++ {
		op, err := user.NewCreate(user.User{Username: fmt.Sprint("user", i), Email: fmt.Sprintf("user%d@example.org", i)})
		if err != nil {
			b.Fatal(err)
		}
		r, err := user.ApplyOne(b.Context(), stores[0], user.Change{Op: op})
		if err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		for <-published < r.Position {
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "median-µs")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
}
