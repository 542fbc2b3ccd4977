package main

import (
	"slices"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	crdhelpers "k8s.io/apiextensions-apiserver/pkg/apihelpers"
	crdv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdinformers "k8s.io/apiextensions-apiserver/pkg/client/informers/externalversions"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/endpoints/discovery"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	apiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/tools/cache"
)

// announce tells clients what is served, in the one way and the other.
func announce(server *apiserver.GenericAPIServer, config *apiserver.Config, of schema.GroupVersion, resources []apidiscoveryv2.APIResourceDiscovery) {
	entry := apidiscoveryv2.APIVersionDiscovery{
		Version: of.Version, Resources: resources, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent,
	}
	if of.Group == "" {
		server.AggregatedLegacyDiscoveryGroupManager.AddGroupVersion("", entry)
		plain := discovery.NewLegacyRootAPIHandler(config.DiscoveryAddresses, server.Serializer, "/api")
		both := aggregated.WrapAggregatedDiscoveryToHandler(plain,
			server.AggregatedLegacyDiscoveryGroupManager, server.AggregatedLegacyDiscoveryGroupManager)
		server.Handler.GoRestfulContainer.Add(both.GenerateWebService("/api", metav1.APIVersions{}))
		return
	}
	server.AggregatedDiscoveryGroupManager.AddGroupVersion(of.Group, entry)
	group := groupOf(of.Group, []string{of.Version})
	server.DiscoveryGroupManager.AddGroup(group)
	server.Handler.GoRestfulContainer.Add(discovery.NewAPIGroupHandler(server.Serializer, group).WebService())
}

// listDefinedGroups keeps the plain list of groups in step with the definitions, as the aggregator of a whole cluster
// does.
func listDefinedGroups(server *apiserver.GenericAPIServer, factory crdinformers.SharedInformerFactory) {
	own := crdv1.SchemeGroupVersion
	server.DiscoveryGroupManager.AddGroup(groupOf(own.Group, []string{own.Version}))
	definitions := factory.Apiextensions().V1().CustomResourceDefinitions()
	look := func(changed any) {
		if gone, ok := changed.(cache.DeletedFinalStateUnknown); ok {
			changed = gone.Obj
		}
		name := changed.(*crdv1.CustomResourceDefinition).Spec.Group
		all, err := definitions.Lister().List(labels.Everything())
		if err != nil {
			utilruntime.HandleError(err)
			return
		}
		var versions []string
		for _, definition := range all {
			if definition.Spec.Group != name || !crdhelpers.IsCRDConditionTrue(definition, crdv1.Established) {
				continue
			}
			for _, one := range definition.Spec.Versions {
				if one.Served && !slices.Contains(versions, one.Name) {
					versions = append(versions, one.Name)
				}
			}
		}
		if len(versions) == 0 {
			server.DiscoveryGroupManager.RemoveGroup(name)
			return
		}
		slices.SortFunc(versions, func(a, b string) int { return version.CompareKubeAwareVersionStrings(b, a) })
		server.DiscoveryGroupManager.AddGroup(groupOf(name, versions))
	}
	_, err := definitions.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: look, UpdateFunc: func(_, now any) { look(now) }, DeleteFunc: look,
	})
	utilruntime.Must(err)
}

func groupOf(name string, versions []string) metav1.APIGroup {
	group := metav1.APIGroup{Name: name}
	for _, one := range versions {
		full := schema.GroupVersion{Group: name, Version: one}.String()
		group.Versions = append(group.Versions, metav1.GroupVersionForDiscovery{GroupVersion: full, Version: one})
	}
	group.PreferredVersion = group.Versions[0]
	return group
}
