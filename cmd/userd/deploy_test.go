//go:build deploy

package main_test

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// The tests of the folder deploy: make deploy-check. They need root, for chroot, systemd-analyze, promtool, nginx and PostgreSQL.

const deployFolder = "../../deploy/"

// command runs a command and returns its output.
func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// released returns the program that `make build` builds in a clone with a tag.
func released(t *testing.T) (program, version string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "clone")
	command(t, ".", "git", "clone", "--quiet", "--no-hardlinks", "../..", dir)
	command(t, dir, "git", "tag", "v1.2.3")
	command(t, dir, "make", "build")
	program = filepath.Join(dir, "userd")
	return program, command(t, dir, program, "--version")
}

// A build has the version of its tag, is static, and is the same in another folder.
func TestReleaseIsReproducible(t *testing.T) {
	first, version := released(t)
	second, _ := released(t)
	if !strings.Contains(version, "1.2.3") {
		t.Errorf("userd --version = %q, want the tag v1.2.3", version)
	}
	if got, want := hashOf(t, first), hashOf(t, second); got != want {
		t.Errorf("the programs of two builds differ: %x and %x", got, want)
	}
	binary, err := elf.Open(first)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = binary.Close() }()
	if slices.ContainsFunc(binary.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		t.Error("the program needs a dynamic linker")
	}
}

func hashOf(t *testing.T, path string) [sha256.Size]byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(content)
}

// The program runs as in its container: nothing in the root file system but the program, an unprivileged user that
// can write to the folder of the store only, the variables of the Containerfile, and its health check.
func TestContainer(t *testing.T) {
	file, err := os.ReadFile(deployFolder + "Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	user := find(t, file, `(?m)^USER (\d+:\d+)$`)
	variables := strings.Fields(find(t, file, `(?m)^ENV (.*)$`))
	check := find(t, file, `(?m)^HEALTHCHECK .* CMD \["/userd", "(\w+)"\]$`)

	program, _ := released(t)
	root := t.TempDir()
	data := filepath.Join(root, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	command(t, ".", "chown", user, data)
	command(t, ".", "chmod", "0555", root)
	command(t, ".", "install", "-m", "0555", program, filepath.Join(root, "userd"))
	inside := []string{"chroot", "--userspec=" + user, root, "/userd"}
	// Ports of this machine may be in use.
	admin := "USERD_ADMIN_LISTEN=127.0.0.1:" + freePort(t)
	env := append(variables, "USERD_LISTEN=127.0.0.1:0", admin, "USERD_LOG_FORMAT=text")

	healthy := func() error {
		cmd := exec.CommandContext(t.Context(), inside[0], append(inside[1:], check)...)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		t.Logf("userd %s: %s", check, out)
		return err
	}
	if healthy() == nil {
		t.Errorf("userd %s succeeded without a server", check)
	}
	var id int64
	for _, name := range []string{"ada", "bob"} {
		p := launch(t, append(inside, "serve"), ".", env)
		if err := healthy(); err != nil {
			t.Errorf("userd %s = %v with a server", check, err)
		}
		client := p.client(t, 1<<20)
		if id != 0 {
			if _, err := client.GetUser(t.Context(), &userv1.GetUserRequest{UserId: id}); err != nil {
				t.Errorf("GetUser after a restart: %v", err)
			}
		}
		created, err := client.CreateUser(t.Context(), &userv1.CreateUserRequest{Username: name, Email: name + "@example.org"})
		if err != nil {
			t.Fatal(err)
		}
		id = created.GetUser().GetUserId()
		p.terminate(t)
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("exit status = %d, want 0\n%s", code, p.output)
		}
	}
}

func find(t *testing.T, text []byte, pattern string) string {
	t.Helper()
	match := regexp.MustCompile(pattern).FindSubmatch(text)
	if match == nil {
		t.Fatalf("no line %s", pattern)
	}
	return string(match[1])
}

// The units are valid, and the service is well confined.
func TestSystemdUnits(t *testing.T) {
	dir := t.TempDir()
	service, err := os.ReadFile(deployFolder + "systemd/userd.service")
	if err != nil {
		t.Fatal(err)
	}
	service = bytes.ReplaceAll(service, []byte("/usr/local/bin/userd"), []byte(build(t, "")))
	if err := os.WriteFile(filepath.Join(dir, "userd.service"), service, 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, ".", "cp", deployFolder+"systemd/userd.socket", dir)
	command(t, dir, "systemd-analyze", "verify", "--man=no", "./userd.service", "./userd.socket")
	command(t, dir, "systemd-analyze", "security", "--offline=true", "--threshold=15", "./userd.service")
}

func TestPrometheusConfig(t *testing.T) {
	command(t, deployFolder+"prometheus", "promtool", "check", "config", "prometheus.yml")
}

// The manifests are valid YAML, and their flags, ports and paths are those of the program.
func TestKubernetesManifests(t *testing.T) {
	help := command(t, ".", build(t, ""), "serve", "--help")
	manifests, err := filepath.Glob(deployFolder + "kubernetes/*.yaml")
	if err != nil || len(manifests) == 0 {
		t.Fatalf("%d manifests, %v", len(manifests), err)
	}
	for _, path := range manifests {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		kinds := 0
		for decoder := yaml.NewDecoder(bytes.NewReader(content)); ; kinds++ {
			var manifest struct{ Kind, APIVersion string }
			if err := decoder.Decode(&manifest); err == io.EOF { //nolint:errorlint // returned as it is
				break
			} else if err != nil || manifest.Kind == "" {
				t.Fatalf("%s: %+v, %v", path, manifest, err)
			}
		}
		if kinds < 3 {
			t.Errorf("%s: %d objects, want at least 3", path, kinds)
		}
		for _, flag := range regexp.MustCompile(`(?m)^ +- (--[a-z-]+)=`).FindAllSubmatch(content, -1) {
			if !strings.Contains(help, " "+string(flag[1])) {
				t.Errorf("%s: %s is no flag of userd", path, flag[1])
			}
		}
		for _, probe := range regexp.MustCompile(`path: (/\w+), port: admin`).FindAllSubmatch(content, -1) {
			if name := string(probe[1]); name != "/livez" && name != "/readyz" {
				t.Errorf("%s: probe of %s", path, name)
			}
		}
	}
}
