package packaging_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// ofThisMachine are the folders by which the stand-ins for images of others have this machine's programs.
func ofThisMachine() []string {
	var args []string
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64", "/usr/share"} {
		args = append(args, "--volume", dir+":"+dir+":ro")
	}
	return args
}

// others makes stand-ins for the images of compose.yaml that are not ours: the same users, folders, volumes, signals and
// ways to start, with the programs of this machine.
func (e *engine) others(t *testing.T, haproxy, postgres string) {
	t.Helper()
	tree := debian(t)
	mkdir(t, filepath.Join(tree, "usr/local/etc/haproxy"))
	write(t, filepath.Join(tree, "etc/passwd"), "root:x:0:0::/root:/bin/sh\nhaproxy:x:99:99::/var/lib/haproxy:/bin/sh\n", 0o644)
	e.standIn(t, "docker.io/library/"+haproxy, tree, "--env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "--user", "haproxy", "--stop-signal", "SIGUSR1",
		"--entrypoint", `["haproxy", "-W", "-db"]`, "--cmd", "-f /usr/local/etc/haproxy/haproxy.cfg")

	programs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(programs) == 0 {
		t.Fatalf("the machine has no PostgreSQL (apt-get install postgresql): %v", err)
	}
	tree = debian(t)
	mkdir(t, filepath.Join(tree, "usr/local/bin"))
	mkdir(t, filepath.Join(tree, "var"))
	if err := os.Symlink("../run", filepath.Join(tree, "var/run")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(tree, "etc/passwd"), "root:x:0:0::/root:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n", 0o644)
	write(t, filepath.Join(tree, "usr/local/bin/docker-entrypoint.sh"), read(t, "testdata/postgres-entrypoint"), 0o755)
	id := strings.TrimSpace(run(t, e.buildah("from", "scratch")))
	run(t, e.buildah("add", "--quiet", id, tree, "/"))
	for dir, mode := range map[string]os.FileMode{"/run/postgresql": 0o777, "/var/lib/postgresql/data": 0o700} {
		empty := t.TempDir()
		if err := os.Chmod(empty, mode); err != nil {
			t.Fatal(err)
		}
		run(t, e.buildah("add", "--quiet", "--chown", "999:999", id, empty, dir))
	}
	run(t, e.buildah("config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin:"+programs[len(programs)-1], "--env", "PGDATA=/var/lib/postgresql/data",
		"--volume", "/var/lib/postgresql/data", "--stop-signal", "SIGINT", "--entrypoint", `["docker-entrypoint.sh"]`, "--cmd", "postgres", id))
	run(t, e.buildah("commit", "--quiet", "--rm", id, "docker.io/library/"+postgres))
}
