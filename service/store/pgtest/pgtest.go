// Package pgtest gives each test a PostgreSQL database of its own.
//
// The databases are in the server of the variable USERD_TEST_POSTGRES, a URL of a role that may create databases. Without
// it, the first test starts a private server from installed programs, on a Unix socket in a temporary folder, with
// fsync. Stop ends it. A test never skips: without a server it fails.
package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Variable names the server for the tests.
const Variable = "USERD_TEST_POSTGRES"

// cluster is the server of the test binary.
var cluster struct {
	mu      sync.Mutex
	private *Server // nil: none was started
	url     string  // of the server; empty: not started
	// templates are databases that Stop drops.
	templates []string
}

// Run runs the tests and ends the private server. It is called by TestMain.
func Run(m *testing.M) int {
	defer func() {
		if err := Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	return m.Run()
}

// Stop ends the private server, if one was started, and otherwise drops the templates.
func Stop() error {
	cluster.mu.Lock()
	private, templates := cluster.private, cluster.templates
	cluster.templates = nil
	cluster.mu.Unlock()
	var errs []error
	for _, name := range templates {
		if private == nil {
			errs = append(errs, execute("DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	cluster.mu.Lock()
	defer cluster.mu.Unlock()
	cluster.private, cluster.url = nil, ""
	if private == nil {
		return nil
	}
	return private.Remove()
}

// Database returns the URL of a new database, which the end of the test drops.
func Database(t testing.TB) string {
	t.Helper()
	return create(t, " STRATEGY FILE_COPY")
}

// Template is a prepared database that Database copies. The zero value is ready to use.
type Template struct {
	once sync.Once
	name string
	err  error
}

// Database returns the URL of a copy, which the end of the test drops. prepare is called once, with the URL of the
// database to be copied.
func (p *Template) Database(t testing.TB, prepare func(url string) error) string {
	t.Helper()
	p.once.Do(func() {
		p.name = newName()
		cluster.mu.Lock()
		cluster.templates = append(cluster.templates, p.name)
		cluster.mu.Unlock()
		if p.err = execute("CREATE DATABASE " + p.name); p.err == nil {
			p.err = prepare(withDatabase(p.name))
		}
	})
	if p.err != nil {
		t.Fatalf("prepare the database: %v", p.err)
	}
	// The default strategy writes all pages of the copy to the write-ahead log.
	return create(t, " STRATEGY FILE_COPY TEMPLATE "+p.name)
}

func create(t testing.TB, options string) string {
	t.Helper()
	name := newName()
	if err := execute("CREATE DATABASE " + name + options); err != nil {
		t.Fatalf("create a database: %v", err)
	}
	t.Cleanup(func() {
		if err := execute("DROP DATABASE IF EXISTS " + name + " WITH (FORCE)"); err != nil {
			t.Errorf("drop the database: %v", err)
		}
	})
	return withDatabase(name)
}

func newName() string { return "userd_test_" + strings.ToLower(rand.Text()) }

// withDatabase returns the URL of a database of the server, which is started.
func withDatabase(name string) string {
	cluster.mu.Lock()
	defer cluster.mu.Unlock()
	u, err := url.Parse(cluster.url)
	if err != nil {
		return cluster.url // connecting reports the error
	}
	u.Path = "/" + name
	return u.String()
}

// start starts the server with the first call, and returns its URL.
func start() (string, error) {
	cluster.mu.Lock()
	defer cluster.mu.Unlock()
	if cluster.url != "" {
		return cluster.url, nil
	}
	if cluster.url = os.Getenv(Variable); cluster.url != "" {
		return cluster.url, nil
	}
	private, err := NewServer()
	if err != nil {
		return "", err
	}
	if err := private.Start(); err != nil {
		return "", errors.Join(err, private.Remove())
	}
	cluster.private, cluster.url = private, private.URL()
	return cluster.url, nil
}

// execute runs a statement on the server.
func execute(statement string) error {
	address, err := start()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // also after the context of the test
	defer cancel()
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement)
	return errors.Join(err, conn.Close(ctx))
}
