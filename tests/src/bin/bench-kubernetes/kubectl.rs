//! `kubectl scale` to the first container that is asked for.

use std::time::{Duration, Instant};

use evenkeel::kubernetes::object::Kind;
use evenkeel_tests::docker::sweep;
use evenkeel_tests::kube::access::Access;
use evenkeel_tests::kube::kubectl;
use evenkeel_tests::kube::proxy::Proxy;
use evenkeel_tests::measure::{row, rows};
use serde_json::json;

use crate::agent::Agent;
use crate::cluster::{Cluster, NAMESPACE};
use crate::socket::Socket;

const DEADLINE: Duration = Duration::from_secs(60);

/// Removes what was made, after the agent.
struct Left(String);

impl Drop for Left {
    fn drop(&mut self) {
        sweep(&self.0);
    }
}

pub(crate) async fn measure(quick: bool) {
    let times = if quick { 10 } else { 30 };
    let cluster = Cluster::start().await;
    let _left = Left(cluster.owner.clone());
    let socket = Socket::listen(&cluster.directory.path().join("engine.sock"));
    // kubectl goes through it, the agent does not.
    let proxy = Proxy::start(&cluster.server).await;
    let agent = Agent::real(&cluster, "kubectl", &[]);
    let host = json!({"name": "h1", "endpoint": format!("unix://{}", socket.path.display())});
    let fleet = json!({"backend": {"docker": {"hosts": [host]}}});
    cluster.put(Kind::Fleet, "bench", fleet).await;
    let name = format!("{}-web", cluster.owner);
    let spec = json!({"fleet": "bench", "replicas": 1, "image": "evenkeel/toy:1",
        "resources": {"memory": "32Mi"}, "rollout": {"maxSurge": "100%"}});
    cluster.put(Kind::ScalingService, &name, spec).await;
    cluster.ready(1).await;
    let writes = |a: &Access| a.verb == "patch" && a.resource == "scalingservices/scale";
    let (mut took, mut written) = (Vec::new(), Vec::new());
    for n in 0..times {
        eprintln!("kubectl: {} of {times}", n + 1);
        agent.rests().await;
        let begun = Instant::now();
        let replicas = format!("--replicas={}", n + 2);
        let object = format!("scalingservice/{name}");
        let args = ["scale", "-n", NAMESPACE, &object, &replicas];
        let config = proxy.kubeconfig();
        let scaled = tokio::task::block_in_place(|| kubectl(&config, &args));
        let said = String::from_utf8_lossy(&scaled.stderr);
        assert!(scaled.status.success(), "kubectl {args:?}: {said}");
        let created = loop {
            if let Some(created) = socket.first_create(begun) {
                break created;
            }
            assert!(begun.elapsed() < DEADLINE, "no container is asked for: {}", agent.tail());
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let passed = proxy.passed(writes, begun).unwrap();
        took.push(created.saturating_duration_since(passed.began).as_secs_f64() * 1e3);
        written.push(passed.answered.duration_since(passed.began).as_secs_f64() * 1e3);
        cluster.ready(1).await;
    }
    rows(
        "kubectl",
        "kubectl scale, from its write to the first create call",
        &took,
        [Some(150), None],
    );
    let median = evenkeel_tests::measure::quantile(&written, 0.5);
    let what = "of which the API server took for the write: median";
    row(&json!({"row": "kubectl", "what": what, "value": median, "unit": "ms"}));
}
