package packaging_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"
)

// facts are what the ways to run stspub have in common, whatever each calls it.
type facts struct {
	Command      string        // what it is told
	Folders      []string      // where it finds its configuration, which it cannot write to, and where it may write
	Ports        []string      // that it may open without being root
	Rights       string        // what of root's it has
	ReadOnly     bool          // the root of its file system
	NoNewRights  bool          // by programs that have more
	Unprivileged bool          // its user
	Patience     time.Duration // before it is killed
}

// TestAgreement: unit, image with compose files, and manifests say the same.
func TestAgreement(t *testing.T) {
	want := facts{
		Command: "serve", Folders: []string{"/etc/stspub ro", "/run/stspub rw", "/var/lib/stspub rw"},
		Ports: []string{"443", "80"}, ReadOnly: true, NoNewRights: true, Unprivileged: true, Patience: time.Minute,
	}
	single := want
	single.Patience = 30 * time.Second // it does not linger
	for what, pair := range map[string][2]facts{
		"stspub.service":      {unitFacts(t), want},
		"compose.single.yaml": {composeFacts(t, project(t, root, "compose.single.yaml").Services["stspub"]), single},
		"compose.yaml":        {composeFacts(t, project(t, root, "compose.yaml").Services["node1"]), want},
		"kubernetes.yaml":     {podFacts(t), want},
	} {
		if diff := cmp.Diff(pair[1], pair[0]); diff != "" {
			t.Errorf("%s (+) is not like the others (-):\n%s", what, diff)
		}
	}
}

// command is what is left of a command when the place of the configuration is the one it has anyhow.
func command(args []string) string {
	return strings.TrimSuffix(strings.Join(args, " "), " --config /etc/stspub/stspub.toml")
}

func unitFacts(t *testing.T) facts {
	t.Helper()
	settings := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^(\w+)=(.*)$`).FindAllStringSubmatch(read(t, unit), -1) {
		settings[m[1]] += m[2]
	}
	f := facts{
		Command:  command(unitCommands(t)[0]),
		ReadOnly: settings["ProtectSystem"] == "strict", NoNewRights: settings["NoNewPrivileges"] == "yes", Unprivileged: settings["DynamicUser"] == "yes",
	}
	f.Folders = []string{"/etc/stspub ro", "/run/" + settings["RuntimeDirectory"] + " rw", "/var/lib/" + settings["StateDirectory"] + " rw"}
	// The one right that opens the ports; elsewhere a sysctl does.
	if settings["AmbientCapabilities"] == "CAP_NET_BIND_SERVICE" {
		f.Ports = []string{"443", "80"}
	}
	f.Rights = strings.TrimPrefix(settings["CapabilityBoundingSet"], "CAP_NET_BIND_SERVICE")
	f.Patience, _ = time.ParseDuration(settings["TimeoutStopSec"])
	return f
}

// image is a line of the Dockerfile's last stage.
func image(t *testing.T, instruction string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^`+instruction+` (.*)$`).FindAllStringSubmatch(read(t, root+"/Dockerfile"), -1)
	if len(m) != 1 {
		t.Fatalf("Dockerfile: %d lines %s", len(m), instruction)
	}
	return m[0][1]
}

func composeFacts(t *testing.T, s types.ServiceConfig) facts {
	t.Helper()
	f := facts{
		Command:  regexp.MustCompile(`[\["\],]+`).ReplaceAllString(image(t, "CMD"), ""),
		ReadOnly: s.ReadOnly, NoNewRights: slices.Contains(s.SecurityOpt, "no-new-privileges:true"),
		Unprivileged: s.User == image(t, "USER"), Patience: time.Duration(*s.StopGracePeriod),
	}
	if s.Sysctls["net.ipv4.ip_unprivileged_port_start"] == "0" {
		f.Ports = slices.Sorted(slices.Values(strings.Fields(image(t, "EXPOSE"))))
	}
	if !slices.Equal(s.CapDrop, []string{"ALL"}) || len(s.CapAdd) > 0 {
		f.Rights = fmt.Sprint(s.CapAdd)
	}
	folders := regexp.MustCompile(`/[^"]+`).FindAllString(image(t, "VOLUME"), -1)
	for i := range folders {
		folders[i] += " rw"
	}
	for _, v := range s.Volumes {
		if v.ReadOnly {
			folders = append(folders, v.Target+" ro")
		}
	}
	slices.Sort(folders)
	f.Folders = folders
	return f
}

func podFacts(t *testing.T) facts {
	t.Helper()
	pod := readManifests(t).set.Spec.Template.Spec
	c := pod.Containers[0]
	f := facts{
		Command: command(c.Args), ReadOnly: *c.SecurityContext.ReadOnlyRootFilesystem, NoNewRights: !*c.SecurityContext.AllowPrivilegeEscalation,
		Unprivileged: image(t, "USER") == fmt.Sprintf("%d:%d", *pod.SecurityContext.RunAsUser, *pod.SecurityContext.RunAsGroup),
		Patience:     time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second,
	}
	if s := pod.SecurityContext.Sysctls; len(s) == 1 && s[0].Name == "net.ipv4.ip_unprivileged_port_start" && s[0].Value == "0" {
		for _, p := range c.Ports {
			if p.Name != "health" {
				f.Ports = append(f.Ports, fmt.Sprint(p.ContainerPort))
			}
		}
	}
	if caps := c.SecurityContext.Capabilities; len(caps.Add) > 0 || fmt.Sprint(caps.Drop) != "[ALL]" {
		f.Rights = fmt.Sprint(caps.Add)
	}
	for _, v := range c.VolumeMounts {
		if mode := map[bool]string{true: " ro", false: " rw"}[v.ReadOnly]; v.Name != "secrets" {
			f.Folders = append(f.Folders, v.MountPath+mode)
		}
	}
	slices.Sort(f.Folders)
	return f
}
