// A Kubernetes API server for tests: the CustomResourceDefinition server that every cluster runs, unmodified, and beside it
// the built-in kinds that evenkeel reads, writes and is installed with, in the generic registry.
//
// There are no controllers, no pods and no RBAC: a known token may do everything, nothing is collected, a deployment
// stays a document. It serves https on loopback, keeps everything in etcd, and writes a kubeconfig.
package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace/noop"
	corev1 "k8s.io/api/core/v1"
	crdv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	crdoptions "k8s.io/apiextensions-apiserver/pkg/cmd/server/options"
	crdopenapi "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	"k8s.io/apiserver/pkg/endpoints/openapi"
	apiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	openapiutil "k8s.io/apiserver/pkg/util/openapi"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"
)

func main() {
	store := flag.String("etcd", "http://127.0.0.1:2379", "where etcd answers")
	listen := flag.String("listen", "127.0.0.1:0", "the address to serve https on")
	home := flag.String("dir", ".", "the directory for certificate and kubeconfig")
	tokens := flag.String("tokens", "tokens.csv", "who may ask: lines of token,user,id")
	klog.InitFlags(nil)
	flag.Parse()
	if err := serve(apiserver.SetupSignalContext(), *store, *listen, *home, *tokens); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, store, listen, home, tokens string) error {
	config, err := common(listen, home, tokens)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config.LoopbackClientConfig)
	if err != nil {
		return err
	}
	shared := informers.NewSharedInformerFactory(client, 0)
	if config.AdmissionControl, err = namespacesMustExist(client, shared); err != nil {
		return err
	}

	// The definitions' server is the inner one. What the outer one does not know, it is asked.
	inner := *config
	inner.PostStartHooks = map[string]apiserver.PostStartHookConfigEntry{}
	codec := crdserver.Codecs.LegacyCodec(crdv1.SchemeGroupVersion)
	definitions, err := definitionServer(&inner, keptIn(store, codec))
	if err != nil {
		return err
	}
	// Its description of itself comes from the inner one too: nobody generates one for the built-in kinds.
	config.SkipOpenAPIInstallation = true
	etcd := keptIn(store, builtinCodec())
	// The inner one says it already.
	etcd.SkipHealthEndpoints = true
	if err := etcd.ApplyTo(config); err != nil {
		return err
	}
	server, err := config.Complete(shared).New("builtins", definitions.GenericAPIServer)
	if err != nil {
		return err
	}
	if err := installBuiltins(server, config); err != nil {
		return err
	}
	listDefinedGroups(server, definitions.Informers)
	server.AddPostStartHookOrDie("namespaces", func(hook apiserver.PostStartHookContext) error {
		shared.Start(hook.Done())
		for _, name := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem} {
			if err := makeNamespace(hook, client, name); err != nil {
				return err
			}
		}
		shared.WaitForCacheSync(hook.Done())
		return nil
	})
	if err := writeKubeconfig(home, tokens, config.ExternalAddress); err != nil {
		return err
	}
	return server.PrepareRun().RunWithContext(ctx)
}

// common is what both servers have in common: how they are reached and by whom.
func common(listen, home, tokens string) (*apiserver.Config, error) {
	config := apiserver.NewConfig(builtinCodecs)
	run := options.NewServerRunOptions()
	if err := run.ComponentGlobalsRegistry.Set(); err != nil {
		return nil, err
	}
	if err := run.Complete(); err != nil {
		return nil, err
	}
	if err := run.ApplyTo(config); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, err
	}
	address := listener.Addr().(*net.TCPAddr)
	https := options.NewSecureServingOptions()
	https.Listener, https.BindAddress, https.BindPort = listener, address.IP, address.Port
	https.ServerCert.CertDirectory = home
	if err := https.MaybeDefaultWithSelfSignedCerts("localhost", nil, []net.IP{address.IP}); err != nil {
		return nil, err
	}
	if err := https.WithLoopback().ApplyTo(&config.SecureServing, &config.LoopbackClientConfig); err != nil {
		return nil, err
	}
	config.ExternalAddress = address.String()
	known := authenticator.TokenFunc(func(_ context.Context, token string) (*authenticator.Response, bool, error) {
		return whoHas(token, tokens)
	})
	config.Authentication.Authenticator = group.NewAuthenticatedGroupAdder(bearertoken.New(known))
	config.Authorization.Authorizer = authorizerfactory.NewAlwaysAllowAuthorizer()
	config.AggregatedDiscoveryGroupManager = aggregated.NewResourceManager("apis")
	return config, nil
}

// whoHas looks the token up in the file, anew each time: a test takes a token away by editing it.
func whoHas(token, path string) (*authenticator.Response, bool, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, false, err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if entry := strings.Split(lines.Text(), ","); len(entry) > 1 && entry[0] == token {
			return &authenticator.Response{User: &user.DefaultInfo{Name: entry[1]}}, true, nil
		}
	}
	return nil, false, nil
}

// namespacesMustExist refuses what is made in a namespace that is not there or is going.
func namespacesMustExist(client kubernetes.Interface, shared informers.SharedInformerFactory) (admission.Interface, error) {
	plugin, err := lifecycle.NewLifecycle(sets.New(metav1.NamespaceDefault, metav1.NamespaceSystem))
	if err != nil {
		return nil, err
	}
	plugin.SetExternalKubeClientSet(client)
	plugin.SetExternalKubeInformerFactory(shared)
	return admission.NewChainHandler(plugin), nil
}

func keptIn(store string, codec runtime.Codec) *options.EtcdOptions {
	etcd := options.NewEtcdOptions(storagebackend.NewDefaultConfig("/registry", codec))
	etcd.StorageConfig.Transport.ServerList = []string{store}
	// Nobody is there who would finish a deletion in the foreground.
	etcd.EnableGarbageCollection = false
	return etcd
}

// definitionServer serves CustomResourceDefinitions and what they define, as in every cluster.
func definitionServer(config *apiserver.Config, etcd *options.EtcdOptions) (*crdserver.CustomResourceDefinitions, error) {
	config.Serializer = crdserver.Codecs
	if err := etcd.ApplyTo(config); err != nil {
		return nil, err
	}
	enabled := crdserver.DefaultAPIResourceConfigSource()
	if err := options.NewAPIEnablementOptions().ApplyTo(config, enabled, crdserver.Scheme); err != nil {
		return nil, err
	}
	types := openapiutil.GetOpenAPIDefinitionsWithoutDisabledFeatures(crdopenapi.GetOpenAPIDefinitions)
	namer := openapi.NewDefinitionNamer(crdserver.Scheme, clientscheme.Scheme)
	config.OpenAPIConfig = apiserver.DefaultOpenAPIConfig(types, namer)
	config.OpenAPIV3Config = apiserver.DefaultOpenAPIV3Config(types, namer)
	config.OpenAPIConfig.Info.Title = "evenkeel test"
	whole := crdserver.Config{
		GenericConfig: &apiserver.RecommendedConfig{Config: *config},
		ExtraConfig: crdserver.ExtraConfig{
			CRDRESTOptionsGetter: crdoptions.NewCRDRESTOptionsGetter(*etcd, config.ResourceTransformers, config.StorageObjectCountTracker),
			MasterCount:          1,
			ServiceResolver:      webhook.NewDefaultServiceResolver(),
			AuthResolverWrapper: webhook.NewDefaultAuthenticationInfoResolverWrapper(
				nil, nil, config.LoopbackClientConfig, noop.NewTracerProvider()),
		},
	}
	return whole.Complete().New(apiserver.NewEmptyDelegate())
}

func makeNamespace(ctx context.Context, client kubernetes.Interface, name string) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	// The server is up, what it keeps things in may not be yet.
	return wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		_, err := client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{})
		return err == nil || apierrors.IsAlreadyExists(err), nil
	})
}

// writeKubeconfig lets the first token of the file in. Whoever sees the kubeconfig sees all of it.
func writeKubeconfig(home, tokens, address string) error {
	certificate, err := os.ReadFile(filepath.Join(home, "apiserver.crt"))
	if err != nil {
		return err
	}
	entries, err := os.ReadFile(tokens)
	if err != nil {
		return err
	}
	token, _, _ := strings.Cut(string(entries), ",")
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
contexts:
  - {name: test, context: {cluster: test, user: test, namespace: default}}
clusters:
  - {name: test, cluster: {server: "https://%s", certificate-authority-data: %s}}
users:
  - {name: test, user: {token: "%s"}}
`, address, base64.StdEncoding.EncodeToString(certificate), token)
	path := filepath.Join(home, "kubeconfig")
	if err := os.WriteFile(path+".part", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".part", path)
}
