package postgres

import (
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/store/pgtest"
	"github.com/yourorg/userservice/service/user"
)

// BenchmarkCreate creates users by callers that are distributed over nodes, also with a latency to the database.
func BenchmarkCreate(b *testing.B) {
	for _, latency := range []time.Duration{0, time.Millisecond} {
		for _, nodes := range []int{1, 2, 3} {
			for _, callers := range []int{1, 64, 512} {
				if callers < nodes || latency > 0 && nodes == 2 {
					continue
				}
				b.Run(fmt.Sprintf("latency=%v/nodes=%d/callers=%d", latency, nodes, callers), func(b *testing.B) {
					benchmarkCreate(b, latency, nodes, callers)
				})
			}
		}
	}
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
