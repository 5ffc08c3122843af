package pgtest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startTimeout = time.Minute
	stopTimeout  = 20 * time.Second
)

// Server is a private server. Its methods are not safe for concurrent use.
type Server struct {
	Settings []string // further arguments of postgres; must not be modified while it runs

	dir      string // data, and the socket
	programs string // folder of postgres and initdb

	process *exec.Cmd // nil: stopped
	ended   chan error
	output  *lastLines
}

// NewServer creates the files of a server, with initdb.
func NewServer() (*Server, error) {
	return newServer("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
}

// NewReplica creates the files of a streaming replica of a running server, with pg_basebackup.
func (s *Server) NewReplica() (*Server, error) {
	return newServer("pg_basebackup", "-h", s.dir, "-U", "postgres", "-c", "fast", "-X", "stream", "-R", "--no-sync")
}

// newServer creates the files of a server with a program.
func newServer(program string, args ...string) (*Server, error) {
	programs, err := findPrograms()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, programs: programs}
	if err := s.run(program, append(args, "-D", s.data())...); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

// Program returns the path of an installed program of the newest server, such as pgbench.
func Program(name string) (string, error) {
	programs, err := findPrograms()
	return filepath.Join(programs, name), err
}

// run runs a program of the server as its user, who is made the owner of the folder.
func (s *Server) run(program string, args ...string) error {
	if err := giveToServer(s.dir); err != nil {
		return err
	}
	command := exec.Command(filepath.Join(s.programs, program), args...) //nolint:gosec,noctx // an installed program; bounded by the timeout of the tests
	command.Dir, command.SysProcAttr = s.dir, asServer()
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, out)
	}
	return nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// URL returns the URL of the database postgres.
func (s *Server) URL() string { return "postgres://postgres@/postgres?host=" + s.dir }

// Socket returns the path of the Unix socket.
func (s *Server) Socket() string { return filepath.Join(s.dir, ".s.PGSQL.5432") }

// Start starts the server and waits until it accepts connections.
func (s *Server) Start() error {
	//nolint:gosec,noctx // an installed program; ended by Stop
	process := exec.Command(filepath.Join(s.programs, "postgres"), append([]string{"-D", s.data(), "-k", s.dir, "-c", "listen_addresses=",
		"-c", "max_connections=600", "-c", "shared_buffers=128MB", "-c", "fsync=on", "-c", "log_min_messages=log"}, s.Settings...)...)
	process.Dir, process.SysProcAttr = s.dir, asServer()
	messages, err := process.StderrPipe()
	if err != nil {
		return err
	}
	s.ended, s.output = make(chan error, 1), &lastLines{}
	started, ready := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the thread must not end before the server, see asServer
		err := process.Start()
		started <- err
		if err == nil {
			s.output.read(messages, "ready to accept ", ready) // connections, or read-only connections
			s.ended <- process.Wait()
		}
		runtime.UnlockOSThread()
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	s.process = process
	select {
	case <-ready:
		return nil
	case err := <-s.ended:
		s.process = nil
		return fmt.Errorf("postgres ended: %w\n%s", err, s.output.text())
	case <-time.After(startTimeout):
		return fmt.Errorf("postgres did not start in %v\n%s", startTimeout, s.output.text())
	}
}

// Stop disconnects the clients and ends the server.
func (s *Server) Stop() error { return s.end(syscall.SIGINT) }

// Remove ends the server and removes its files.
func (s *Server) Remove() error { return errors.Join(s.Stop(), os.RemoveAll(s.dir)) }

// Kill ends the server without a checkpoint, as a crash does.
func (s *Server) Kill() error { return s.end(syscall.SIGQUIT) }

// KillPostmaster kills the first process of the server. The others end when they notice it.
func (s *Server) KillPostmaster() error { return s.end(syscall.SIGKILL) }

func (s *Server) end(signal os.Signal) error {
	if s.process == nil {
		return nil
	}
	process := s.process
	s.process = nil
	if err := process.Process.Signal(signal); err != nil {
		return err
	}
	select {
	case err := <-s.ended:
		if signal != syscall.SIGINT {
			err = nil // the exit status is not 0
		}
		return err
	case <-time.After(stopTimeout):
		return errors.Join(fmt.Errorf("postgres did not stop in %v", stopTimeout), process.Process.Kill())
	}
}

// ProgramsVariable names the folder of the programs of private servers.
const ProgramsVariable = "USERD_TEST_POSTGRES_PROGRAMS"

// findPrograms returns the folder of ProgramsVariable, else that of the newest installed server.
func findPrograms() (string, error) {
	if folder := os.Getenv(ProgramsVariable); folder != "" {
		return folder, nil
	}
	folders, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	slices.Sort(folders)
	slices.Reverse(folders)
	if path, err := exec.LookPath("postgres"); err == nil {
		folders = append(folders, filepath.Dir(path))
	}
	for _, folder := range append(folders, "/usr/local/bin", "/usr/local/pgsql/bin") {
		if executable(folder, "postgres") && executable(folder, "initdb") {
			return folder, nil
		}
	}
	return "", fmt.Errorf("no PostgreSQL server found: install it (Debian: apt-get install postgresql), "+
		"or set %s to the URL of a server on which databases may be created", Variable)
}

func executable(folder, name string) bool {
	info, err := os.Stat(filepath.Join(folder, name))
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// lastLines keeps the end of the output of the server, for errors.
type lastLines struct {
	mu    sync.Mutex
	lines []string
}

// read reads the output, and closes found at the first line that contains the text.
func (l *lastLines) read(r io.Reader, text string, found chan struct{}) {
	const most = 20
	for lines := bufio.NewScanner(r); lines.Scan(); {
		if found != nil && strings.Contains(lines.Text(), text) {
			close(found)
			found = nil
		}
		l.mu.Lock()
		if l.lines = append(l.lines, lines.Text()); len(l.lines) > most {
			l.lines = l.lines[1:]
		}
		l.mu.Unlock()
	}
}

func (l *lastLines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}
