package main

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/endpoints"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	apiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/names"
	"k8s.io/client-go/applyconfigurations"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
)

// builtin is a kind that is served by its type of k8s.io/api: decoding is strict, metadata is validated, and the rest is
// taken as it is.
type builtin struct {
	version  schema.GroupVersion
	resource string
	short    []string
	cluster  bool
	// PUT may make it; and where it does not, an update must say which version it is of.
	upsert, careful bool
	object, list    runtime.Object
	// What the strategy of a whole cluster fills in.
	settle func(runtime.Object)
	// What a field selector may ask for.
	select_ func(runtime.Object) fields.Set
}

var builtins = []builtin{
	{version: corev1.SchemeGroupVersion, resource: "namespaces", short: []string{"ns"}, cluster: true,
		object: &corev1.Namespace{}, list: &corev1.NamespaceList{}, settle: settleNamespace},
	{version: corev1.SchemeGroupVersion, resource: "secrets",
		object: &corev1.Secret{}, list: &corev1.SecretList{}, settle: settleSecret, select_: secretFields},
	{version: corev1.SchemeGroupVersion, resource: "configmaps", short: []string{"cm"},
		object: &corev1.ConfigMap{}, list: &corev1.ConfigMapList{}},
	{version: corev1.SchemeGroupVersion, resource: "serviceaccounts", short: []string{"sa"},
		object: &corev1.ServiceAccount{}, list: &corev1.ServiceAccountList{}},
	{version: corev1.SchemeGroupVersion, resource: "services", short: []string{"svc"},
		object: &corev1.Service{}, list: &corev1.ServiceList{}},
	{version: corev1.SchemeGroupVersion, resource: "events", short: []string{"ev"}, upsert: true,
		object: &corev1.Event{}, list: &corev1.EventList{}, select_: eventFields},
	{version: coordinationv1.SchemeGroupVersion, resource: "leases", upsert: true, careful: true,
		object: &coordinationv1.Lease{}, list: &coordinationv1.LeaseList{}},
	{version: appsv1.SchemeGroupVersion, resource: "deployments", short: []string{"deploy"},
		object: &appsv1.Deployment{}, list: &appsv1.DeploymentList{}},
	{version: policyv1.SchemeGroupVersion, resource: "poddisruptionbudgets", short: []string{"pdb"},
		object: &policyv1.PodDisruptionBudget{}, list: &policyv1.PodDisruptionBudgetList{}},
	{version: networkingv1.SchemeGroupVersion, resource: "networkpolicies", short: []string{"netpol"},
		object: &networkingv1.NetworkPolicy{}, list: &networkingv1.NetworkPolicyList{}},
	{version: rbacv1.SchemeGroupVersion, resource: "roles",
		object: &rbacv1.Role{}, list: &rbacv1.RoleList{}},
	{version: rbacv1.SchemeGroupVersion, resource: "rolebindings",
		object: &rbacv1.RoleBinding{}, list: &rbacv1.RoleBindingList{}},
	{version: rbacv1.SchemeGroupVersion, resource: "clusterroles", cluster: true,
		object: &rbacv1.ClusterRole{}, list: &rbacv1.ClusterRoleList{}},
	{version: rbacv1.SchemeGroupVersion, resource: "clusterrolebindings", cluster: true,
		object: &rbacv1.ClusterRoleBinding{}, list: &rbacv1.ClusterRoleBindingList{}},
}

var (
	builtinScheme = newScheme()
	builtinCodecs = serializer.NewCodecFactory(builtinScheme)
)

// builtinCodec is how they are kept: in their only version, events in the core one.
func builtinCodec() runtime.Codec {
	var versions []schema.GroupVersion
	for _, kind := range builtins {
		versions = append(versions, kind.version)
	}
	return builtinCodecs.LegacyCodec(versions...)
}

func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, coordinationv1.AddToScheme, eventsv1.AddToScheme, appsv1.AddToScheme,
		policyv1.AddToScheme, networkingv1.AddToScheme, rbacv1.AddToScheme,
	} {
		utilruntime.Must(add(scheme))
	}
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	// The registry works on an internal version. Here it is the external one.
	for _, kind := range builtins {
		internal := schema.GroupVersion{Group: kind.version.Group, Version: runtime.APIVersionInternal}
		scheme.AddKnownTypes(internal, kind.object, kind.list)
	}
	addEvents(scheme)
	anything := func(label, value string) (string, string, error) { return label, value, nil }
	for _, kind := range []string{"Event", "Secret"} {
		utilruntime.Must(scheme.AddFieldLabelConversionFunc(corev1.SchemeGroupVersion.WithKind(kind), anything))
	}
	return scheme
}

func settleNamespace(object runtime.Object) {
	namespace := object.(*corev1.Namespace)
	metav1.SetMetaDataLabel(&namespace.ObjectMeta, corev1.LabelMetadataName, namespace.Name)
	namespace.Status.Phase = cmp.Or(namespace.Status.Phase, corev1.NamespaceActive)
}

func settleSecret(object runtime.Object) {
	secret := object.(*corev1.Secret)
	secret.Type = cmp.Or(secret.Type, corev1.SecretTypeOpaque)
	for key, value := range secret.StringData {
		if secret.Data == nil {
			secret.Data = map[string][]byte{}
		}
		secret.Data[key] = []byte(value)
	}
	secret.StringData = nil
}

func secretFields(object runtime.Object) fields.Set {
	return fields.Set{"type": string(object.(*corev1.Secret).Type)}
}

// strategy is the least that the registry asks of a kind.
type strategy struct {
	runtime.ObjectTyper
	names.NameGenerator
	kind builtin
}

func (s strategy) NamespaceScoped() bool          { return !s.kind.cluster }
func (s strategy) AllowCreateOnUpdate() bool      { return s.kind.upsert }
func (s strategy) AllowUnconditionalUpdate() bool { return !s.kind.careful }
func (s strategy) Canonicalize(runtime.Object)    {}
func (s strategy) Validate(context.Context, runtime.Object) field.ErrorList {
	return nil
}
func (s strategy) ValidateUpdate(_ context.Context, _, _ runtime.Object) field.ErrorList {
	return nil
}
func (s strategy) WarningsOnCreate(context.Context, runtime.Object) []string        { return nil }
func (s strategy) WarningsOnUpdate(_ context.Context, _, _ runtime.Object) []string { return nil }
func (s strategy) PrepareForCreate(_ context.Context, object runtime.Object)        { s.settle(object) }
func (s strategy) PrepareForUpdate(_ context.Context, object, _ runtime.Object)     { s.settle(object) }
func (s strategy) settle(object runtime.Object) {
	if s.kind.settle != nil {
		s.kind.settle(object)
	}
}

// shelf is a registry with the names that people type.
type shelf struct {
	*registry.Store
	short []string
}

func (s shelf) ShortNames() []string { return s.short }

func (kind builtin) shelf(getter generic.RESTOptionsGetter) (shelf, error) {
	attributes := func(object runtime.Object) (labels.Set, fields.Set, error) {
		metadata, err := meta.Accessor(object)
		if err != nil {
			return nil, nil, err
		}
		set := fields.Set{"metadata.name": metadata.GetName()}
		if !kind.cluster {
			set["metadata.namespace"] = metadata.GetNamespace()
		}
		if kind.select_ != nil {
			set = fields.Set(labels.Merge(labels.Set(set), labels.Set(kind.select_(object))))
		}
		return metadata.GetLabels(), set, nil
	}
	resource := kind.version.WithResource(kind.resource).GroupResource()
	kinds, _, err := builtinScheme.ObjectKinds(kind.object)
	if err != nil {
		return shelf{}, err
	}
	rules := strategy{ObjectTyper: builtinScheme, NameGenerator: names.SimpleNameGenerator, kind: kind}
	store := &registry.Store{
		NewFunc:                   kind.object.DeepCopyObject,
		NewListFunc:               kind.list.DeepCopyObject,
		DefaultQualifiedResource:  resource,
		SingularQualifiedResource: schema.GroupResource{Group: resource.Group, Resource: strings.ToLower(kinds[0].Kind)},
		CreateStrategy:            rules,
		UpdateStrategy:            rules,
		DeleteStrategy:            rules,
		TableConvertor:            rest.NewDefaultTableConvertor(resource),
		PredicateFunc: func(label labels.Selector, field fields.Selector) storage.SelectionPredicate {
			return storage.SelectionPredicate{Label: label, Field: field, GetAttrs: attributes}
		},
	}
	return shelf{store, kind.short}, store.CompleteWithOptions(&generic.StoreOptions{RESTOptions: getter, AttrFunc: attributes})
}

// installBuiltins does what InstallAPIGroup does, with the merge schemas that client-go ships: those that would be
// generated are in no library.
func installBuiltins(server *apiserver.GenericAPIServer, config *apiserver.Config) error {
	byVersion := map[schema.GroupVersion]map[string]rest.Storage{}
	put := func(version schema.GroupVersion, resource string, on shelf) {
		if byVersion[version] == nil {
			byVersion[version] = map[string]rest.Storage{}
		}
		byVersion[version][resource] = on
	}
	for _, kind := range builtins {
		on, err := kind.shelf(config.RESTOptionsGetter)
		if err != nil {
			return err
		}
		put(kind.version, kind.resource, on)
		if kind.resource == "events" {
			put(eventsv1.SchemeGroupVersion, kind.resource, on)
		}
	}
	versions := make([]schema.GroupVersion, 0, len(byVersion))
	for version := range byVersion {
		versions = append(versions, version)
	}
	slices.SortFunc(versions, func(a, b schema.GroupVersion) int { return strings.Compare(a.String(), b.String()) })
	for _, version := range versions {
		if err := installVersion(server, config, version, byVersion[version]); err != nil {
			return err
		}
	}
	return nil
}

func installVersion(server *apiserver.GenericAPIServer, config *apiserver.Config, version schema.GroupVersion, on map[string]rest.Storage) error {
	parameters := runtime.NewParameterCodec(builtinScheme)
	info := apiserver.NewDefaultAPIGroupInfo(version.Group, builtinScheme, parameters, builtinCodecs)
	group := &endpoints.APIGroupVersion{
		Root:                        "/apis",
		GroupVersion:                version,
		Storage:                     on,
		AllServedVersionsByResource: map[string][]string{},
		OptionsExternalVersion:      info.OptionsExternalVersion,
		Serializer:                  info.NegotiatedSerializer,
		ParameterCodec:              parameters,
		Typer:                       builtinScheme,
		Creater:                     builtinScheme,
		Convertor:                   builtinScheme,
		ConvertabilityChecker:       builtinScheme,
		Defaulter:                   builtinScheme,
		UnsafeConvertor:             runtime.UnsafeObjectConvertor(builtinScheme),
		Namer:                       meta.NewAccessor(),
		TypeConverter:               applyconfigurations.NewTypeConverter(clientscheme.Scheme),
		EquivalentResourceRegistry:  server.EquivalentResourceRegistry,
		Authorizer:                  server.Authorizer,
		Admit:                       config.AdmissionControl,
		MinRequestTimeout:           time.Duration(config.MinRequestTimeout) * time.Second,
		MaxRequestBodyBytes:         config.MaxRequestBodyBytes,
	}
	for resource := range on {
		group.AllServedVersionsByResource[resource] = []string{version.String()}
	}
	if version.Group == "" {
		group.Root = "/api"
	}
	resources, _, err := group.InstallREST(server.Handler.GoRestfulContainer)
	if err != nil {
		return err
	}
	announce(server, config, version, resources)
	return nil
}
