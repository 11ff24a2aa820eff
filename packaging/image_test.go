package packaging_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// An engine builds and runs images in a store of its own.
type engine struct {
	dir string
	env []string
}

func newEngine(t *testing.T) *engine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("containers with their own networks take root; run the tests as root")
	}
	e := openEngine(t.TempDir())
	// As little of the machine as can be: no systemd, no cgroups to manage, no limits of a user's session.
	write(t, filepath.Join(e.dir, "containers.conf"),
		"[containers]\ndefault_ulimits = []\n[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"runc\"\n", 0o644)
	t.Cleanup(func() { run(t, e.podman("rm", "--force", "--time", "0", "--all", "--volumes")) })
	return e
}

// openEngine is one that is there already.
func openEngine(dir string) *engine {
	return &engine{dir: dir, env: append(os.Environ(), "CONTAINERS_CONF="+filepath.Join(dir, "containers.conf"))}
}

func (e *engine) buildah(args ...string) *exec.Cmd { return e.command("buildah", args) }
func (e *engine) podman(args ...string) *exec.Cmd  { return e.command("podman", args) }

func (e *engine) command(program string, args []string) *exec.Cmd {
	// The driver vfs copies, and so works on every file system, a container's included.
	own := []string{"--root", filepath.Join(e.dir, "store"), "--runroot", filepath.Join(e.dir, "run"), "--storage-driver", "vfs"}
	cmd := exec.Command(program, append(own, args...)...)
	cmd.Env = e.env
	return cmd
}

// image builds the Dockerfile in a context.
func (e *engine) image(t *testing.T, context string) string {
	t.Helper()
	const tag = "localhost/stspub:tried"
	e.standIns(t, filepath.Join(context, "Dockerfile"))
	args := []string{"build", "--format", "docker", "--isolation", "chroot", "--pull-never", "--network", "host", "--tag", tag}
	for from, to := range map[string]string{
		"/usr":                "/usr:ro",
		"/etc/ssl":            "/etc/ssl:ro",
		goEnv(t, "GOROOT"):    "/opt/go:ro",
		made(t, "GOMODCACHE"): "/go/pkg/mod:rw",
		made(t, "GOCACHE"):    "/root/.cache/go-build:rw",
	} {
		args = append(args, "--volume", from+":"+to)
	}
	run(t, e.buildah(append(args, context)...))
	return tag
}

// standIns makes what the FROM lines name: for golang a Debian out of this machine's /usr and Go, for the base of the
// result an empty root with certificates and users, as distroless has them.
func (e *engine) standIns(t *testing.T, dockerfile string) {
	t.Helper()
	text, err := os.ReadFile(dockerfile)
	if err != nil {
		t.Fatal(err)
	}
	stages := 0
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "FROM" {
			continue
		}
		stages++
		switch name := words[1]; {
		case strings.HasPrefix(name, "golang:"):
			e.standIn(t, "docker.io/library/"+name, debian(t),
				"--env", "PATH=/opt/go/bin:/usr/bin:/bin", "--env", "GOPATH=/go", "--env", "GOTOOLCHAIN=local", "--env", "HOME=/root",
				"--env", "GOPROXY="+goEnv(t, "GOPROXY"), "--env", "GOSUMDB="+goEnv(t, "GOSUMDB"))
		case strings.HasPrefix(name, "gcr.io/distroless/static"):
			e.standIn(t, name, distroless(t), "--user", "65532", "--workingdir", "/home/nonroot",
				"--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
				"--env", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt")
		default:
			t.Fatalf("Dockerfile: there is no stand-in for %q", name)
		}
	}
	if stages != 2 {
		t.Fatalf("Dockerfile: %d FROM lines, want 2", stages)
	}
}

func (e *engine) standIn(t *testing.T, name, tree string, config ...string) {
	t.Helper()
	id := strings.TrimSpace(run(t, e.buildah("from", "scratch")))
	run(t, e.buildah("add", "--quiet", id, tree, "/"))
	run(t, e.buildah(append(append([]string{"config"}, config...), id)...))
	run(t, e.buildah("commit", "--quiet", "--rm", id, name))
}

func debian(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"usr", "etc/ssl", "opt/go", "go/pkg/mod", "root/.cache/go-build", "tmp", "proc", "sys", "dev"} {
		mkdir(t, filepath.Join(dir, d))
	}
	for _, d := range []string{"bin", "lib", "lib64", "sbin"} {
		if err := os.Symlink("usr/"+d, filepath.Join(dir, d)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func distroless(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"etc/ssl/certs", "home/nonroot", "tmp", "run", "var/lib", "usr/local"} {
		mkdir(t, filepath.Join(dir, d))
	}
	write(t, filepath.Join(dir, "etc/passwd"), "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n", 0o644)
	write(t, filepath.Join(dir, "etc/group"), "root:x:0:\nnonroot:x:65532:\n", 0o644)
	roots, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
	if err != nil {
		t.Fatalf("the machine has no CA certificates (apt-get install ca-certificates): %v", err)
	}
	write(t, filepath.Join(dir, "etc/ssl/certs/ca-certificates.crt"), string(roots), 0o644)
	return dir
}

// checkout is the repository as it stands, with all its changes committed and tagged, and beside it what the
// compose files mount. It returns the commit.
func checkout(t *testing.T, tag string) (dir, commit string) {
	t.Helper()
	dir = t.TempDir()
	git := func(in string, args ...string) string {
		cmd := exec.Command("git", append([]string{"-C", in, "-c", "user.name=test", "-c", "user.email=test@example.org"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null")
		return strings.TrimSpace(run(t, cmd))
	}
	for name := range strings.SplitSeq(git(root, "ls-files", "--cached", "--others", "--exclude-standard", "-z"), "\x00") {
		if name != "" {
			copyFile(t, filepath.Join(root, name), filepath.Join(dir, name))
		}
	}
	git(dir, "init", "--quiet")
	git(dir, "add", "--all")
	git(dir, "commit", "--quiet", "--no-verify", "--message", "all")
	git(dir, "tag", tag)
	for _, d := range []string{"config", "secrets"} {
		mkdir(t, filepath.Join(dir, d))
		write(t, filepath.Join(dir, d, "file"), "not for the image", 0o600)
	}
	return dir, git(dir, "rev-parse", "HEAD")
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	info, err := os.Stat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return // deleted, and not committed yet
	}
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	mkdir(t, filepath.Dir(to))
	write(t, to, string(text), info.Mode().Perm())
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	return strings.TrimSpace(run(t, exec.Command("go", "env", name)))
}

// made is a directory of Go's, which need not exist before its first use.
func made(t *testing.T, name string) string {
	t.Helper()
	dir := goEnv(t, name)
	mkdir(t, dir)
	return dir
}
