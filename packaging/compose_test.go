package packaging_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// nobody is the user of the container.
const nobody = 65532

// project reads compose.yaml in a directory prepared as it says at its top.
func project(t *testing.T) *types.Project {
	t.Helper()
	dir := t.TempDir()
	mkdir(t, filepath.Join(dir, "config"))
	copyFile(t, filepath.Join(root, "config.example.toml"), filepath.Join(dir, "config/stspub.toml"))
	mkdir(t, filepath.Join(dir, "secrets"))
	token := filepath.Join(dir, "secrets/cloudflare")
	write(t, token, "secret\n", 0o400)
	if err := os.Chown(token, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	copyFile(t, filepath.Join(root, "compose.yaml"), filepath.Join(dir, "compose.yaml"))
	options, err := cli.NewProjectOptions([]string{filepath.Join(dir, "compose.yaml")}, cli.WithName("stspub"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// podmanArgs are the flags by which podman runs a service as compose does, but for the network, which is the caller's.
func podmanArgs(t *testing.T, p *types.Project, s types.ServiceConfig) []string {
	t.Helper()
	// Without systemd podman cannot run health checks by itself, and cgroups may be out of reach.
	args := []string{"--health-interval", "disable", "--ulimit", "host", "--user", s.User}
	if s.ReadOnly {
		args = append(args, "--read-only", "--read-only-tmpfs=false") // docker adds no tmpfs either
	}
	for _, c := range s.CapDrop {
		args = append(args, "--cap-drop", c)
	}
	for _, o := range s.SecurityOpt {
		args = append(args, "--security-opt", o)
	}
	for key, value := range s.Sysctls {
		args = append(args, "--sysctl", key+"="+value)
	}
	for _, v := range s.Volumes {
		mount := v.Source + ":" + v.Target
		if v.ReadOnly {
			mount += ":ro"
		}
		args = append(args, "--volume", mount)
	}
	for _, secret := range s.Secrets {
		target := secret.Target
		if target == "" {
			target = secret.Source
		}
		if !filepath.IsAbs(target) {
			target = "/run/secrets/" + target
		}
		args = append(args, "--volume", p.Secrets[secret.Source].File+":"+target+":ro")
	}
	allTried(t, s)
	return args
}

// allTried fails for a key of compose.yaml which nothing here knows of.
func allTried(t *testing.T, s types.ServiceConfig) {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var keys map[string]any
	if err := json.Unmarshal(text, &keys); err != nil {
		t.Fatal(err)
	}
	tried := []string{"user", "read_only", "cap_drop", "security_opt", "sysctls", "volumes", "secrets"} // by podmanArgs
	tried = append(tried, "ports", "healthcheck", "stop_grace_period")                                  // by TestImage
	tried = append(tried, "build", "image", "restart", "networks")                                      // by compose alone
	for key, value := range keys {
		if value != nil && !slices.Contains(tried, key) {
			t.Errorf("compose.yaml: no test tries %q", key)
		}
	}
}
