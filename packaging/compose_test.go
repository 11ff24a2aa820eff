package packaging_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/stspub/stspub/internal/config"
)

// nobody is the user of the container.
const nobody = 65532

// nodes are the services of compose.yaml that are stspub.
var nodes = [...]string{"node1", "node2"}

// project reads a compose file of a directory as compose does, by the loader of the specification.
func project(t *testing.T, dir, file string) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(dir, file)}, cli.WithName("stspub"))
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
	for _, at := range s.Tmpfs {
		args = append(args, "--tmpfs", at)
	}
	for key, value := range s.Environment {
		args = append(args, "--env", key+"="+*value)
	}
	if s.Hostname != "" {
		args = append(args, "--hostname", s.Hostname)
	}
	for name, addrs := range s.ExtraHosts {
		args = append(args, "--add-host", name+":"+addrs[0])
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
	if s.HealthCheck.Test[0] != "CMD" {
		t.Fatalf("%s: the health check is no program: %q", s.Name, s.HealthCheck.Test)
	}
	check, err := json.Marshal(s.HealthCheck.Test[1:])
	if err != nil {
		t.Fatal(err)
	}
	args = append(args, "--health-cmd", string(check))
	allTried(t, s)
	return args
}

// allTried fails for a key of a compose file which nothing here knows of.
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
	// By podmanArgs, then by those who start containers, then by compose alone.
	tried := []string{"user", "read_only", "cap_drop", "security_opt", "sysctls", "tmpfs", "environment", "hostname", "extra_hosts", "volumes", "secrets"}
	tried = append(tried, "ports", "healthcheck", "stop_grace_period", "networks", "network_mode", "command", "image")
	tried = append(tried, "build", "restart", "depends_on", "entrypoint")
	for key, value := range keys {
		if value != nil && !slices.Contains(tried, key) {
			t.Errorf("%s: no test tries %q", s.Name, key)
		}
	}
}

// TestCompose: each container of both files has no more rights than it needs, comes back by itself, and says how it is;
// the world gets in by two ports and no other way.
func TestCompose(t *testing.T) {
	for file, services := range map[string][]string{"compose.single.yaml": {"stspub"}, "compose.yaml": {"balancer", "database", "node1", "node2"}} {
		p := project(t, root, file)
		if got := slices.Sorted(maps.Keys(p.Services)); !slices.Equal(got, services) {
			t.Errorf("%s: services %q, want %q", file, got, services)
		}
		var published []string
		for name, s := range p.Services {
			for _, port := range s.Ports {
				published = append(published, fmt.Sprintf("%s:%d", port.Published, port.Target))
			}
			if user, _, _ := strings.Cut(s.User, ":"); user == "" || user == "0" || user == "root" {
				t.Errorf("%s: %s runs as %q", file, name, s.User)
			}
			if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || len(s.CapAdd) > 0 || s.Privileged ||
				!slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) {
				t.Errorf("%s: %s has more rights than it needs", file, name)
			}
			if s.Restart != types.RestartPolicyUnlessStopped || s.HealthCheck == nil || len(s.HealthCheck.Test) < 2 {
				t.Errorf("%s: %s restarts %q and is checked by %v", file, name, s.Restart, s.HealthCheck)
			}
			for key := range s.Environment {
				if strings.Contains(key, "PASSWORD") || strings.Contains(key, "TOKEN") {
					t.Errorf("%s: %s has the secret %s in its environment", file, name, key)
				}
			}
			for _, v := range s.Volumes {
				source, err := filepath.Rel(p.WorkingDir, v.Source)
				if v.Type != types.VolumeTypeBind || err != nil || source == "config" { // which is made as docs/deploy.md says
					continue
				}
				if _, err := os.Stat(v.Source); err != nil {
					t.Errorf("%s: %s: %v", file, name, err)
				}
			}
		}
		slices.Sort(published)
		if want := []string{"443:443", "80:80"}; !slices.Equal(published, want) {
			t.Errorf("%s: the ports %q are open, want %q", file, published, want)
		}
	}
}

// TestNodesAgree: what compose.yaml, haproxy.cfg and nodes.toml say of each other is so.
func TestNodesAgree(t *testing.T) {
	p := project(t, root, "compose.yaml")
	conf := nodesConfig(t, read(t, "nodes.toml"))
	addr := func(s types.ServiceConfig) string { return s.Networks["default"].Ipv4Address }
	balancer, database := p.Services["balancer"], p.Services["database"]
	if got := fmt.Sprint(conf.Server.Proxies); got != "["+addr(balancer)+"/32]" {
		t.Errorf("proxies of nodes.toml are %s, the balancer is %s", got, addr(balancer))
	}
	subnet := netip.MustParsePrefix(p.Networks["default"].Ipam.Config[0].Subnet)
	haproxy := read(t, "haproxy.cfg")
	for _, name := range nodes {
		s := p.Services[name]
		if s.Hostname != name || fmt.Sprint(balancer.ExtraHosts[name]) != "["+addr(s)+"]" || !subnet.Contains(netip.MustParseAddr(addr(s))) {
			t.Errorf("%s is %s at %s; the balancer finds it at %s", name, s.Hostname, addr(s), balancer.ExtraHosts[name])
		}
		for _, port := range []string{conf.Server.HTTPS, conf.Server.HTTP} {
			if !strings.Contains(haproxy, "\tserver "+name+" "+name+port+"\n") {
				t.Errorf("haproxy.cfg does not lead to %s%s", name, port)
			}
		}
		if grace := time.Duration(*s.StopGracePeriod); grace < 2*conf.Server.Linger {
			t.Errorf("%s is killed after %v, and lingers for %v", name, grace, conf.Server.Linger)
		}
		if s.DependsOn["database"].Condition != types.ServiceConditionHealthy {
			t.Errorf("%s does not wait for the database", name)
		}
	}
	if got, want := slices.Sorted(maps.Keys(p.Secrets)), secretsOf(read(t, "nodes.toml")); !slices.Equal(got, want) {
		t.Errorf("compose.yaml has the secrets %q, nodes.toml reads %q", got, want)
	}
	one, two := p.Services["node1"], p.Services["node2"]
	one.Name, one.Hostname, one.Networks = two.Name, two.Hostname, two.Networks
	if diff := cmp.Diff(one, two); diff != "" {
		t.Errorf("the nodes differ in more than their names and addresses:\n%s", diff)
	}
	if servers := regexp.MustCompile(`(?m)^\tserver (\S+)`).FindAllStringSubmatch(haproxy, -1); len(servers) != 4*len(nodes) {
		t.Errorf("haproxy.cfg has %d servers, want each node in four backends", len(servers))
	}
	check := regexp.MustCompile(`check port (\d+) inter (\d+s) fall (\d+) `).FindStringSubmatch(haproxy)
	if check == nil || ":"+check[1] != conf.Server.Health || conf.Server.Linger < 5*time.Second {
		t.Errorf("haproxy.cfg asks by %q; nodes.toml answers at %s, and lingers for %v", check, conf.Server.Health, conf.Server.Linger)
	}
	if database.NetworkMode != "none" || len(database.Networks) > 0 {
		t.Error("the database is on a network")
	}
}

// nodesConfig is what a configuration made from nodes.toml says, with the secrets that it names.
func nodesConfig(t *testing.T, text string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	for _, name := range secretsOf(text) {
		write(t, filepath.Join(dir, name), "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n", 0o600)
	}
	path := filepath.Join(dir, "stspub.toml")
	write(t, path, strings.ReplaceAll(text, `"/run/secrets/`, `"`+dir+"/"), 0o600)
	conf, warnings, err := config.Load(path, func(string) string { return "" })
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%v, warnings %v, in\n%s", err, warnings, text)
	}
	return conf
}

// secretsOf are the names of the files in /run/secrets that a configuration names.
func secretsOf(text string) []string {
	var names []string
	for _, m := range regexp.MustCompile(`"/run/secrets/([^"]*)"`).FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	slices.Sort(names)
	return names
}
