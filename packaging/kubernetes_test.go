package packaging_test

import (
	"fmt"
	"os"
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
