//! The words that `docker create` gets for a task, as Mesos gives them.

use std::path::Path;

use super::super::runner::Task;

/// A container's name, which nothing else has.
pub(super) fn name(owner: &str, task: &Task) -> String {
    let short: String = task.id.chars().rev().take(60).collect();
    let short: String = short.chars().rev().collect();
    format!("{owner}-{}", short.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()))
}

/// All arguments.
pub(super) fn create(task: &Task, name: &str, label: &str, sandbox: &Path) -> Vec<String> {
    let app = &task.app;
    let need = app.need();
    let mut args: Vec<String> =
        ["create", "--name", name, "--label", label].map(str::to_owned).into();
    let mut add = |name: &str, value: String| args.push(format!("--{name}={value}"));
    add("cpu-shares", format!("{:.0}", (need.cpus * 1024.0).max(2.0)));
    add("memory", format!("{:.0}m", need.mem.max(6.0)));
    for (key, value) in task.env() {
        add("env", format!("{key}={value}"));
    }
    for (outside, inside, readonly) in app.host_volumes() {
        // What is not absolute is within the sandbox.
        let outside = sandbox.join(outside).to_string_lossy().into_owned();
        let mode = if readonly { "ro" } else { "rw" };
        add("volume", format!("{outside}:{inside}:{mode}"));
    }
    match app.network() {
        "host" => add("network", "host".into()),
        "container/bridge" => add("network", "bridge".into()),
        _ => add("network", app.network_name().unwrap_or("bridge").to_owned()),
    }
    if app.network() != "host" {
        // Agents that share this machine differ by address, those with an engine of their own have all of theirs.
        let bind = if task.agent.engine.is_none() {
            format!("{}:", task.agent.host)
        } else {
            String::new()
        };
        for (port, host) in app.ports().iter().zip(&task.host_ports) {
            let Some(host) = host else { continue };
            let inside = port.container.filter(|&port| port != 0).unwrap_or(*host);
            for protocol in port.protocol.split(',') {
                add("publish", format!("{bind}{host}:{inside}/{protocol}"));
            }
        }
    }
    for (key, value) in app.parameters() {
        add(&key, value);
    }
    if app.get("container")["docker"]["privileged"] == true {
        args.push("--privileged".into());
    }
    if let Some(user) = app.get("user").as_str() {
        args.push(format!("--user={user}"));
    }
    let cmd = app.get("cmd").as_str();
    if cmd.is_some() {
        args.push("--entrypoint=/bin/sh".into());
    }
    args.push(app.image().unwrap_or_default().to_owned());
    if let Some(cmd) = cmd {
        args.extend(["-c".to_owned(), cmd.to_owned()]);
    }
    let words = app.get("args").as_array().into_iter().flatten();
    args.extend(words.filter_map(|word| word.as_str().map(str::to_owned)));
    args
}
