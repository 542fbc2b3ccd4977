//! A Kubernetes API server to try things with, or the cluster that the environment names.

use anyhow::{Context as _, Result, bail};

use crate::apiserver;
use crate::command::{cargo, run};
use crate::tree::Tree;

/// What the API server of the tests has nothing of.
pub(crate) const ONLY_A_CLUSTER: &str = "what only a full Kubernetes cluster shows (rights that are enforced, tokens that end, \
                                         namespaces and owned objects that are deleted, admission and quotas)";
const DEFINITIONS: [&str; 3] = ["fleets", "loadbalancers", "scalingservices"];

/// The cluster that the environment names.
pub(crate) fn named() -> Option<String> {
    std::env::var("KUBECONFIG").ok().filter(|path| !path.is_empty())
}

/// The custom resource definitions on a cluster, for as long as tests run.
pub(crate) struct Definitions {
    kubectl: String,
    /// Those that were not there.
    made: Vec<String>,
}

impl Definitions {
    /// Makes those that are missing. One that is there is somebody's, and stays as it is.
    pub(crate) fn ensure(tree: &Tree) -> Result<Self> {
        let kubectl = tree.target().join("kubernetes/kubectl").to_string_lossy().into_owned();
        let asked = run(&kubectl).args(["get", "--raw", "/readyz"]).read();
        asked.context("the cluster of KUBECONFIG does not answer")?;
        let mut all = Self { kubectl, made: Vec::new() };
        for plural in DEFINITIONS {
            let name = format!("{plural}.evenkeel.dev");
            let path = tree.root().join(format!("crds/{plural}.yaml"));
            if run(&all.kubectl).args(["get", "crd", &name]).succeeds() {
                let same = run(&all.kubectl).args(["diff", "-f"]).arg(&path).succeeds();
                if !same {
                    println!(
                        "WARNING: the definition {name} of the cluster is another than ours, and is taken"
                    );
                }
                continue;
            }
            let made = run(&all.kubectl).args(["create", "-f"]).arg(&path).read();
            all.made.push(name.clone());
            let wait = ["wait", "--for=condition=Established", "--timeout=60s", "crd", &name];
            if let Err(why) = made.and_then(|_| run(&all.kubectl).args(wait).read()) {
                all.remove()?;
                return Err(why.context(format!("the definition {name} cannot be made")));
            }
        }
        Ok(all)
    }

    /// Removes those that were made, and with them what tests left.
    pub(crate) fn remove(&self) -> Result<()> {
        for name in &self.made {
            let args = ["delete", "crd", name, "--ignore-not-found", "--timeout=60s"];
            run(&self.kubectl).args(args).read()?;
        }
        Ok(())
    }
}

/// Makes sure of one and prints the path of its kubeconfig, last and alone on its line.
pub(crate) fn up(tree: &Tree, cluster: bool) -> Result<()> {
    if cluster {
        let config =
            named().context("--cluster takes the cluster of KUBECONFIG, which is not set")?;
        let asked = run("kubectl").args(["get", "--raw", "/readyz"]).read();
        asked.with_context(|| format!("the cluster of {config} does not answer"))?;
        println!("{config}");
        return Ok(());
    }
    apiserver::ensure(tree)?;
    program(tree, "up")
}

/// Ends it.
pub(crate) fn down(tree: &Tree) -> Result<()> {
    if !tree.target().join("kubernetes").exists() {
        bail!("none was built here\nhint: cargo xtask testbed kubernetes up");
    }
    program(tree, "down")
}

/// The tests know how one is started, so it is theirs to do.
fn program(tree: &Tree, word: &str) -> Result<()> {
    cargo()
        .args(["run", "--quiet", "--locked", "--package", "evenkeel-tests"])
        .args(["--bin", "testbed-kubernetes", "--", word])
        .within(tree.root())
        .go()
}
