// Reads manifests, as `kustomize build` writes them, and decodes each strictly as the API server and Dapr's operator would: a
// field that the type does not have, or has twice, is an error. Then it does to the pods what Dapr's injector would, and prints
// what an operator has to provide, one a line: `setting NAME`, `secret NAME KEY`.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	components "github.com/dapr/dapr/pkg/apis/components/v1alpha1"
	resiliency "github.com/dapr/dapr/pkg/apis/resiliency/v1alpha1"
	"github.com/dapr/dapr/pkg/injector/patcher"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// What was found, by kind.
type found struct {
	deployments []*apps.Deployment
	services    []*core.Service
	budgets     []*policy.PodDisruptionBudget
	settings    map[string]*core.ConfigMap
	scopes      map[string][]string
}

func run() error {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		apps.AddToScheme, core.AddToScheme, policy.AddToScheme, components.AddToScheme, resiliency.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	all := found{settings: map[string]*core.ConfigMap{}, scopes: map[string][]string{}}
	documents := yaml.NewYAMLReader(bufio.NewReader(os.Stdin))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		object, kind, err := decoder.Decode(document, nil, nil)
		if err != nil {
			return fmt.Errorf("%w in\n%s", err, document)
		}
		switch object := object.(type) {
		case *apps.Deployment:
			all.deployments = append(all.deployments, object)
		case *core.Service:
			all.services = append(all.services, object)
		case *policy.PodDisruptionBudget:
			all.budgets = append(all.budgets, object)
		case *core.ConfigMap:
			all.settings[object.Name] = object
		case *components.Component:
			all.scopes[object.Name] = object.Scopes
		case *resiliency.Resiliency:
			all.scopes[object.Name] = object.Scopes
		default:
			return fmt.Errorf("nothing is known here of %s", kind)
		}
	}
	if len(all.deployments) == 0 || len(all.services) == 0 || len(all.budgets) == 0 || len(all.scopes) < 2 {
		return errors.New("there is no deployment, service, budget, component or resiliency policy")
	}
	for _, deployment := range all.deployments {
		if err := all.check(deployment); err != nil {
			return fmt.Errorf("deployment %s: %w", deployment.Name, err)
		}
	}
	return nil
}

func (all *found) check(deployment *apps.Deployment) error {
	template := deployment.Spec.Template
	selects := func(what string, selector *meta.LabelSelector) error {
		matches, err := meta.LabelSelectorAsSelector(selector)
		if err != nil {
			return err
		}
		if matches.Empty() || !matches.Matches(labels.Set(template.Labels)) {
			return fmt.Errorf("%s does not select its pods", what)
		}
		return nil
	}
	if err := selects("it", deployment.Spec.Selector); err != nil {
		return err
	}
	for _, spread := range template.Spec.TopologySpreadConstraints {
		if err := selects("the spread over "+spread.TopologyKey, spread.LabelSelector); err != nil {
			return err
		}
	}
	for _, budget := range all.budgets {
		if err := selects("budget "+budget.Name, budget.Spec.Selector); err != nil {
			return err
		}
	}
	ports := map[string]bool{}
	for _, container := range template.Spec.Containers {
		for _, port := range container.Ports {
			ports[port.Name] = true
		}
	}
	for _, service := range all.services {
		if err := selects("service "+service.Name, &meta.LabelSelector{MatchLabels: service.Spec.Selector}); err != nil {
			return err
		}
		for _, port := range service.Spec.Ports {
			if !ports[port.TargetPort.String()] {
				return fmt.Errorf("service %s: no container has port %s", service.Name, port.TargetPort.String())
			}
		}
	}
	pod, err := inject(&core.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec})
	if err != nil {
		return err
	}
	for name, scopes := range all.scopes {
		if !slices.Contains(scopes, pod.Annotations["dapr.io/app-id"]) {
			return fmt.Errorf("%s is not for %s", name, pod.Annotations["dapr.io/app-id"])
		}
	}
	return all.print(pod)
}

// inject does what Dapr does to a pod that is created.
func inject(pod *core.Pod) (*core.Pod, error) {
	known := map[string]bool{}
	config := reflect.TypeOf(patcher.SidecarConfig{})
	for i := range config.NumField() {
		known[config.Field(i).Tag.Get("annotation")] = true
	}
	for name := range pod.Annotations {
		if strings.HasPrefix(name, "dapr.io/") && !known[name] {
			return nil, fmt.Errorf("Dapr does not know the annotation %s", name)
		}
	}
	sidecar := patcher.NewSidecarConfig(pod)
	sidecar.SidecarImage = "daprd"
	sidecar.SetFromPodAnnotations()
	patch, err := sidecar.GetPatch()
	if err != nil {
		return nil, err
	}
	patched, err := patcher.PatchPod(pod, patch)
	if err != nil {
		return nil, err
	}
	if len(patched.Spec.Containers) != len(pod.Spec.Containers)+1 {
		return nil, errors.New("Dapr gives it no sidecar")
	}
	return patched, nil
}

// print says what the containers of a pod are given from elsewhere, and checks what is here.
func (all *found) print(pod *core.Pod) error {
	for _, container := range pod.Spec.Containers {
		for _, from := range container.EnvFrom {
			if from.ConfigMapRef == nil {
				continue
			}
			settings, is := all.settings[from.ConfigMapRef.Name]
			if !is {
				return fmt.Errorf("there is no ConfigMap %s", from.ConfigMapRef.Name)
			}
			for name := range settings.Data {
				fmt.Println("setting", name)
			}
		}
		for _, variable := range container.Env {
			if from := variable.ValueFrom; from != nil && from.SecretKeyRef != nil {
				fmt.Println("secret", from.SecretKeyRef.Name, from.SecretKeyRef.Key)
				if container.Name != "daprd" {
					fmt.Println("setting", variable.Name)
				}
			}
		}
	}
	return nil
}
