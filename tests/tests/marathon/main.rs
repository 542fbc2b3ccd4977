//! The real agent and a Marathon: commits go in, apps come out.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests panic as tests do")]

mod drift;
mod import;
mod life;
mod registry;

use std::time::Duration;

use evenkeel_tests::agent::{Bed, Service};
use evenkeel_tests::marathon::{Agent as MesosAgent, Behaviour, Options, Release, Server};

/// What is asked for is reached within this.
const SOON: Duration = Duration::from_secs(30);
/// For so long nothing may happen where nothing is to be done.
const CALM: Duration = Duration::from_secs(3);

/// A cluster whose tasks do what their image is called.
async fn cluster(release: Release) -> Server {
    let agent = |name: &str, environment: &str| {
        MesosAgent::new(name).attribute("environment", environment).size(8.0, 8192.0)
    };
    let agents =
        vec![agent("10.0.0.1", "test"), agent("10.0.0.2", "test"), agent("10.0.0.3", "production")];
    let options =
        Options { release, agents, second: Duration::from_millis(20), ..Options::default() };
    let options = options.behave(|task| match task.app.image() {
        Some(image) if image.ends_with(":broken") => Behaviour::unhealthy(),
        _ => Behaviour::default(),
    });
    Server::start(options).await
}

/// The document of the fleet that the cluster is.
fn fleet(server: &Server) -> String {
    format!(
        "apiVersion: evenkeel.dev/v1alpha1\nkind: Fleet\nmetadata: {{name: mesos}}\nspec:\n  backend:\n    \
         marathon: {{urls: [\"{}\"], group: /shop}}\n",
        server.url()
    )
}

/// A service on it with a health check.
fn service(bed: &Bed, short: &str, replicas: u32) -> Service {
    let more = "  fleet: mesos\n  resources: {cpu: 100m, memory: 32Mi}\n";
    Service { more: more.into(), ..bed.service(short, replicas) }
}
