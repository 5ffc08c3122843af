package main_test

import (
	"flag"
	"slices"
	"testing"
	"time"
)

// siegeAll is set by make siege. Without it TestSiege runs the rows marked short.
var siegeAll = flag.Bool("siege", false, "run every attack of TestSiege, which takes minutes")

const (
	// siegeMemoryLimit is the value of --memory-limit=auto in a container of siegeMemory bytes.
	siegeMemoryLimit = "460MiB"
	siegeMemory      = 512 << 20

	// readEvery is the interval of the well-behaved caller's reads, writeEvery that of its writes.
	readEvery  = 20 * time.Millisecond
	writeEvery = 50 * time.Millisecond
	// siegeFactor is how many times its idle latency an operation of the well-behaved caller
	// may take.
	siegeFactor = 10
	// leastRead is the least bound of the latency of a read. Attacker, server and caller share the
	// processors of one machine, and ten times the idle latency of a read can be less than one time
	// slice of its scheduler. A write waits for the processor twice, and for a group and its sync.
	leastRead   = 25 * time.Millisecond
	leastWrite  = 2 * leastRead
	noiseFactor = 2
	// servedShare is the share of the operations that have to keep the bound during an attack.
	servedShare = 0.95
	// shortShare and shortAfter replace servedShare and all in make test, which shares its machine with
	// other processes. Without fair shares not one read in five keeps the bound.
	shortShare, shortAfter = 0.5, 0.95
	// recoveryTime lies between the end of an attack and the reads that all have to keep the bound; in make test it is at most that.
	recoveryTime = 5 * time.Second
)

// attack is one row of the siege. It runs in a process of its own and calls from an address of
// its own, with a token of its own where the server asks for one.
type attack struct {
	name  string
	short bool // it is part of make test
	tls   bool
	// clientCA makes the server verify client certificates.
	clientCA bool
	// permissions are those of the attacker's token; nil: authentication is disabled.
	permissions []string
	manyCallers bool // it calls from 1000 addresses: each of the callers has a thousandth of the server
	writes      bool // the well-behaved caller writes, too
	flags       []string
	run         func(a *attacker) error
	// check checks the effects of the attack; nil: only the memory and the latency are checked.
	check func(t *testing.T, s *siege)
}

// TestSiege runs each attack against the program with a memory limit of 460 MiB, in a memory
// cgroup of 512 MiB where it can create one. The process must survive, its resident memory must
// stay below 512 MiB, and a caller that reads one user every 20 ms must get 95 % of its reads
// within 10 times its idle latency while another caller attacks, and all of them 5 s after.
func TestSiege(t *testing.T) {
	for _, a := range attacks() {
		if *siegeAll || a.short {
			t.Run(a.name, func(t *testing.T) { newSiege(t, a, "").run(t) })
		}
	}
}

// TestSiegeDetectsFaults runs an attack against a program with a planted fault, which
// the siege must notice.
func TestSiegeDetectsFaults(t *testing.T) {
	if !*siegeAll {
		t.Skip("only with -siege: it takes as long as the attacks that it repeats")
	}
	for _, f := range []struct {
		fault, attack string
		wants         []string // one of them must fail
	}{
		{"leak-reads", "500 single reads", []string{"memory", "process"}},
		{"one-queue", "50 lists that match nothing", []string{"reads"}},
	} {
		t.Run(f.fault, func(t *testing.T) {
			failures := newSiege(t, attackNamed(f.attack), f.fault).outcome(t)
			if !slices.ContainsFunc(failures, func(why failure) bool { return slices.Contains(f.wants, why.what) }) {
				t.Errorf("with fault %s the siege found %v, want a failure of one of %s", f.fault, failures, f.wants)
			}
		})
	}
}
