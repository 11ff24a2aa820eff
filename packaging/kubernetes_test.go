package packaging_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

// manifests are the objects of kubernetes.yaml, read as the API server reads them with strict validation of fields.
type manifests struct {
	services map[string]core.Service
	budget   policy.PodDisruptionBudget
	set      apps.StatefulSet
}

func readManifests(t *testing.T) manifests {
	t.Helper()
	text, err := os.ReadFile("kubernetes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m := manifests{services: make(map[string]core.Service)}
	for i, doc := range strings.Split(string(text), "\n---\n") {
		var kind struct {
			APIVersion, Kind string
		}
		if err := yaml.Unmarshal([]byte(doc), &kind); err != nil {
			t.Fatalf("document %d: %v", i+1, err)
		}
		read := func(into any) {
			t.Helper()
			if err := yaml.UnmarshalStrict([]byte(doc), into); err != nil {
				t.Fatalf("document %d, %s: %v", i+1, kind.Kind, err)
			}
		}
		switch kind.APIVersion + " " + kind.Kind {
		case "v1 Service":
			var s core.Service
			read(&s)
			m.services[s.Name] = s
		case "policy/v1 PodDisruptionBudget":
			read(&m.budget)
		case "apps/v1 StatefulSet":
			read(&m.set)
		default:
			t.Fatalf("document %d is a %s of %s", i+1, kind.Kind, kind.APIVersion)
		}
	}
	return m
}

// TestKubernetes: the manifests say what Kubernetes knows, and what one says of another is there.
func TestKubernetes(t *testing.T) {
	m := readManifests(t)
	pod := m.set.Spec.Template
	if !labels.SelectorFromSet(m.set.Spec.Selector.MatchLabels).Matches(labels.Set(pod.Labels)) ||
		!labels.SelectorFromSet(m.budget.Spec.Selector.MatchLabels).Matches(labels.Set(pod.Labels)) {
		t.Error("a selector finds no pod")
	}
	if len(pod.Spec.Containers) != 1 {
		t.Fatalf("%d containers", len(pod.Spec.Containers))
	}
	c := pod.Spec.Containers[0]
	ports := make(map[intstr.IntOrString]bool)
	for _, p := range c.Ports {
		ports[intstr.FromString(p.Name)], ports[intstr.FromInt32(p.ContainerPort)] = true, true
	}
	for name, s := range m.services {
		if !labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(pod.Labels)) {
			t.Errorf("service %s finds no pod", name)
		}
		for _, p := range s.Spec.Ports {
			target := p.TargetPort
			if target == (intstr.IntOrString{}) {
				target = intstr.FromInt32(p.Port)
			}
			if !ports[target] {
				t.Errorf("service %s leads to port %s, which the container does not have", name, target.String())
			}
		}
	}
	if _, found := m.services[m.set.Spec.ServiceName]; !found {
		t.Errorf("serviceName %q is no service", m.set.Spec.ServiceName)
	}
	for what, probe := range map[string]*core.Probe{"/servez": c.ReadinessProbe, "/healthz": c.LivenessProbe} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != what || !ports[probe.HTTPGet.Port] {
			t.Errorf("no probe of %s: %+v", what, probe)
		}
	}
	volumes := make(map[string]bool)
	for _, v := range pod.Spec.Volumes {
		volumes[v.Name] = true
	}
	for _, v := range c.VolumeMounts {
		if !volumes[v.Name] {
			t.Errorf("volume %q is mounted, and not there", v.Name)
		}
	}
	s := c.SecurityContext
	if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
		s.Capabilities == nil || fmt.Sprint(s.Capabilities.Drop) != "[ALL]" {
		t.Errorf("the container has rights: %+v", s)
	}
	if u := pod.Spec.SecurityContext.RunAsUser; u == nil || *u != nobody {
		t.Errorf("the container runs as %v, the image's user is %d", u, nobody)
	}
}

// configMap and secret are those that a pod mounts.
func configMap(pod core.PodSpec) string {
	for _, v := range pod.Volumes {
		if v.ConfigMap != nil {
			return v.ConfigMap.Name
		}
	}
	return ""
}

func secret(pod core.PodSpec) string {
	for _, v := range pod.Volumes {
		if v.Secret != nil {
			return v.Secret.SecretName
		}
	}
	return ""
}

// volumeAt is what a pod's container mounts at a path.
func volumeAt(pod core.PodSpec, path string) core.Volume {
	for _, m := range pod.Containers[0].VolumeMounts {
		for _, v := range pod.Volumes {
			if m.MountPath == path && v.Name == m.Name && !m.ReadOnly {
				return v
			}
		}
	}
	return core.Volume{}
}

// TestDeployKubernetes reads the commands for kubectl: they make what the manifests ask for, and name what is in them.
func TestDeployKubernetes(t *testing.T) {
	m := readManifests(t)
	pod := m.set.Spec.Template.Spec
	conf := read(t, "nodes.toml")
	server, table, _ := strings.Cut(section(t, "## Kubernetes", "toml")[0], "\n[store]\n")
	table = "[store]\n" + table
	conf = strings.Replace(conf, "[server]\n", server, 1)
	conf = regexp.MustCompile(`(?ms)^\[store\]\n.*?\n\n`).ReplaceAllLiteralString(conf, table+"\n")
	conf = regexp.MustCompile(`(?m)^proxies = .*\n`).ReplaceAllString(conf, "")

	secrets := secretsOf(conf)
	creates := map[string]string{
		"kubectl create configmap " + configMap(pod):   "--from-file=stspub.toml",
		"kubectl create secret generic " + secret(pod): "--from-file=" + strings.Join(secrets, " --from-file="),
	}
	known := []*regexp.Regexp{
		regexp.MustCompile(`^kubectl apply -f packaging/kubernetes.yaml$`),
		regexp.MustCompile(`^kubectl rollout status statefulset/` + m.set.Name + `$`),
		regexp.MustCompile(`^kubectl exec ` + m.set.Name + `-[01] -- stspub (reload|domain list)$`),
		regexp.MustCompile(`^kubectl set image statefulset/` + m.set.Name + ` ` + pod.Containers[0].Name + `=\S+$`),
		regexp.MustCompile(`^kubectl create configmap ` + configMap(pod) +
			` --from-file=stspub.toml --dry-run=client --output=yaml \| kubectl apply -f -$`),
	}
	for begin, files := range creates {
		known = append(known, regexp.MustCompile("^"+begin+" "+files+"$"))
	}
	lines := commandLines(section(t, "## Kubernetes", "sh"))
	for _, line := range lines {
		if !slices.ContainsFunc(known, func(r *regexp.Regexp) bool { return r.MatchString(line) }) {
			t.Errorf("%s: %q makes or names what the manifests have not", deploy, line)
		}
	}
	for _, r := range known {
		if !slices.ContainsFunc(lines, r.MatchString) {
			t.Errorf("%s has no command %s", deploy, r)
		}
	}

	c := nodesConfig(t, conf)
	if volume := volumeAt(pod, c.Server.State); volume.EmptyDir == nil {
		t.Errorf("stspub keeps its copy of the certificates in %q, where the pod mounts %+v", c.Server.State, volume)
	}
	for i, addr := range []string{c.Server.HTTPS, c.Server.HTTP, c.Server.Health} {
		if port := pod.Containers[0].Ports[i].ContainerPort; addr != fmt.Sprintf(":%d", port) {
			t.Errorf("stspub listens at %s, the pod says %d", addr, port)
		}
	}
}
