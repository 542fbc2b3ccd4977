//! Health and readiness checks that are really made.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join, join_all};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::super::app::{HealthCheck, Readiness};
use super::super::runner::{Report, Task};
use super::{Shared, docker, said};

/// Makes them for as long as it is polled.
pub(super) async fn all(shared: &Arc<Shared>, task: &Task, container: &str, address: Option<&str>) {
    let checks = task.app.health_checks();
    let each = checks.iter().enumerate().map(|(at, check)| async move {
        let place = place(task, check, address);
        let (interval, delay) = (seconds(shared, check.interval), delay(shared, task, at));
        sleep(delay).await;
        loop {
            let limit = seconds(shared, check.timeout).max(Duration::from_millis(100));
            let result =
                timeout(limit, once(shared, task, container, check, place.as_deref())).await;
            let result = result.unwrap_or_else(|_| Err("it takes too long".into()));
            shared.tell(&task.id, Report::Health(at, result));
            sleep(interval.max(Duration::from_millis(10))).await;
        }
    });
    let ready = async {
        if let Some(check) = task.app.readiness() {
            ready(shared, task, &check, address).await;
        }
    };
    join(join_all(each), ready).await;
    pending::<()>().await;
}

fn seconds(shared: &Shared, count: u64) -> Duration {
    shared.second * u32::try_from(count).unwrap_or(u32::MAX)
}

/// Only what the agent checks is waited with.
fn delay(shared: &Shared, task: &Task, at: usize) -> Duration {
    let check = &task.app.get("healthChecks")[at];
    let of_mesos =
        check["protocol"].as_str().is_some_and(|p| p.starts_with("MESOS_") || p == "COMMAND");
    let delay = check["delaySeconds"].as_u64().filter(|_| of_mesos).unwrap_or(0);
    seconds(shared, delay)
}

/// Where a port of the task is: on its agent, unless it has none there or the agent itself asks within.
fn reached(task: &Task, index: usize, within: bool, address: Option<&str>) -> Option<String> {
    let ports = task.app.ports();
    let port = ports.get(index)?;
    let host = task.host_ports.get(index).copied().flatten();
    let inside = port.container.filter(|&port| port != 0).or(host);
    let own = address.zip(inside).map(|(address, port)| format!("{address}:{port}"));
    let outside = host.map(|port| format!("{}:{port}", task.agent.host));
    // The networks of another engine are not reached from here.
    let within = within && task.agent.engine.is_none();
    if within { own.or(outside) } else { outside.or(own) }
}

fn place(task: &Task, check: &HealthCheck, address: Option<&str>) -> Option<String> {
    match check.port {
        Some(port) => {
            let host = address.filter(|_| check.is_of_mesos()).unwrap_or(&task.agent.host);
            Some(format!("{host}:{port}"))
        }
        None => reached(task, check.index, check.is_of_mesos(), address),
    }
}

async fn once(
    shared: &Shared,
    task: &Task,
    container: &str,
    check: &HealthCheck,
    place: Option<&str>,
) -> Result<(), String> {
    if check.protocol == "COMMAND" {
        let exec = ["exec", container, "/bin/sh", "-c", &check.command].map(str::to_owned);
        let out = docker(task.agent.engine.as_deref(), &exec).await;
        return if out.status.success() {
            Ok(())
        } else {
            Err(format!("Command failed: {}", said(&out)))
        };
    }
    let place = place.ok_or("it has no such port")?;
    if check.protocol.ends_with("TCP") {
        return TcpStream::connect(place).await.map(drop).map_err(|error| error.to_string());
    }
    let scheme = if check.protocol.ends_with("HTTPS") { "https" } else { "http" };
    let slash = if check.path.starts_with('/') { "" } else { "/" };
    let url = format!("{scheme}://{place}{slash}{}", check.path);
    let answer = shared.client.get(url).send().await.map_err(|error| error.to_string())?;
    match answer.status() {
        status if (200..400).contains(&status.as_u16()) => Ok(()),
        status => Err(status.to_string()),
    }
}

/// Until it is ready once.
async fn ready(shared: &Shared, task: &Task, check: &Readiness, address: Option<&str>) {
    let Some(place) = reached(task, check.index, false, address) else { return };
    let url = format!("{}://{place}{}", check.protocol.to_lowercase(), check.path);
    loop {
        let limit = seconds(shared, check.timeout).max(Duration::from_millis(100));
        let answer = timeout(limit, shared.client.get(&url).send()).await;
        if let Ok(Ok(answer)) = answer {
            let code = answer.status().as_u16();
            let kind = answer.headers().get("content-type");
            let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
            let body = answer.text().await.unwrap_or_default();
            let is = check.codes.contains(&u64::from(code));
            shared.tell(&task.id, Report::Ready(is, Some((code, kind, body))));
            if is {
                return;
            }
        }
        sleep(seconds(shared, check.interval).max(Duration::from_millis(10))).await;
    }
}
