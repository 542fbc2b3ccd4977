//! Containers, networks, ports and volumes.

use serde_json::Value;

use super::super::normal::Customs;
use super::super::read::Fields;
use super::{Faults, is_unique, list};

pub(super) fn judge(app: &Fields, customs: &Customs, faults: &mut Faults) {
    let networks = list(app.get("networks"));
    judge_networks(networks, faults);
    let host = networks.iter().all(|network| network["mode"] == "host");
    let defined = list(app.get("portDefinitions"));
    let error = "ports of the host need the network of the host";
    faults.unless(host || defined.is_empty(), "/", error);
    judge_names(defined, "/portDefinitions", faults);
    let fixed: Vec<&Value> =
        defined.iter().map(|d| &d["port"]).filter(|port| **port != 0).collect();
    faults.unless(is_unique(&fixed), "/portDefinitions", "a port is there twice");
    judge_gpus(app, customs, faults);
    let Some(container) = app.get("container") else { return };
    let mappings = list(container.get("portMappings"));
    let error = "mappings of ports need a network of the container's own";
    faults.unless(!host || mappings.is_empty(), "/", error);
    judge_names(mappings, "/container/portMappings", faults);
    judge_docker(app, container, networks, customs, faults);
    for (at, volume) in list(container.get("volumes")).iter().enumerate() {
        judge_volume(app, volume, &format!("/container/volumes({at})"), customs, faults);
    }
    let names: Vec<&str> = list(container.get("volumes"))
        .iter()
        .filter_map(|volume| volume["external"]["name"].as_str())
        .collect();
    faults.unless(is_unique(&names), "/container/volumes", "a volume is there twice");
}

fn judge_names(ports: &[Value], path: &str, faults: &mut Faults) {
    let names: Vec<&str> = ports.iter().filter_map(|port| port["name"].as_str()).collect();
    faults.unless(is_unique(&names), path, "a name of a port is there twice");
}

fn judge_gpus(app: &Fields, customs: &Customs, faults: &mut Faults) {
    if app.get("gpus").and_then(Value::as_i64).unwrap_or_default() == 0 {
        return;
    }
    let docker = app.get("container").is_some_and(|container| container["type"] == "DOCKER");
    faults.unless(!docker, "/", "Docker gives no graphics processors");
    let enabled = customs.features.iter().any(|feature| feature == "gpu_resources");
    let error = "the feature gpu_resources is not enabled";
    faults.unless(enabled, "/", error);
}

fn judge_networks(networks: &[Value], faults: &mut Faults) {
    let of = |mode: &str| networks.iter().filter(|n| n["mode"] == mode).collect::<Vec<_>>();
    let (host, bridge, container) = (of("host"), of("container/bridge"), of("container"));
    let called = |n: &&&Value| n.get("name").is_some();
    let labelled = |n: &&&Value| n["labels"].as_object().is_some_and(|all| !all.is_empty());
    let mut rule = |holds, error| faults.unless(holds, "/networks", error);
    let plain = !host.iter().any(|n| called(&n) || labelled(&n));
    rule(plain, "the network of the host has no name and no labels");
    rule(!bridge.iter().any(|n| called(&n)), "a bridge has no name");
    let names: Vec<&str> = networks.iter().filter_map(|n| n["name"].as_str()).collect();
    rule(is_unique(&names), "a network is there twice");
    let one_kind = match (host.len(), bridge.len(), container.len()) {
        (0 | 1, 0, 0) | (0, 1, 0) => true,
        (hosts, bridges, _) => hosts == 0 && bridges == 0,
    };
    let error = "one network of the host, or one bridge, or any number of networks with names";
    rule(one_kind, error);
}

fn judge_docker(
    app: &Fields,
    container: &Value,
    networks: &[Value],
    customs: &Customs,
    faults: &mut Faults,
) {
    let docker = container.get("docker");
    let pull = docker.and_then(|docker| docker.get("pullConfig"));
    let named: Vec<&Value> = networks.iter().filter(|n| n["mode"] == "container").collect();
    if container["type"] == "DOCKER" {
        faults.unless(docker.is_some(), "/container/docker", "not defined");
        let error = "Docker knows no pullConfig";
        faults.unless(pull.is_none(), "/container/docker/pullConfig", error);
        let error = "Docker joins one network with a name at most";
        faults.unless(named.len() <= 1, "/", error);
        let error = "Docker knows no check";
        faults.unless(!app.contains_key("check"), "/check", error);
    } else if let Some(pull) = pull {
        let enabled = customs.features.iter().any(|feature| feature == "secrets");
        let error = "the feature secrets is not enabled";
        faults.unless(enabled, "/container/docker/pullConfig", error);
        let known = pull["secret"]
            .as_str()
            .is_some_and(|secret| app.get("secrets").is_some_and(|all| all.get(secret).is_some()));
        let error = "there is no such secret";
        faults.unless(known, "/container/docker/pullConfig", error);
    }
    for (at, mapping) in list(container.get("portMappings")).iter().enumerate() {
        let path = format!("/container/portMappings({at})");
        let chosen = list(mapping.get("networkNames"));
        let error = "with several networks, a port of the host needs to name one of them";
        let clear = named.len() <= 1 || mapping.get("hostPort").is_none() || chosen.len() == 1;
        faults.unless(clear, &path, error);
        let known = chosen.iter().all(|name| named.iter().any(|network| network["name"] == *name));
        faults.unless(known, &format!("{path}/networkNames"), "there is no such network");
    }
}

fn judge_volume(app: &Fields, volume: &Value, path: &str, customs: &Customs, faults: &mut Faults) {
    if let Some(disk) = volume.get("persistent") {
        let inside = volume["containerPath"].as_str().unwrap_or_default();
        faults.unless(
            ![".", ".."].contains(&inside),
            &format!("{path}/containerPath"),
            "it must be a name",
        );
        let error = "it must be a name without a slash";
        faults.unless(!inside.contains('/'), &format!("{path}/containerPath"), error);
        faults.unless(volume["mode"] == "RW", &format!("{path}/mode"), "must be RW");
        let size = disk["size"].as_i64().unwrap_or_default();
        faults.unless(size > 0, &format!("{path}/persistent/size"), "must be greater than 0");
        let root = disk["type"] == "root";
        let error = "a volume of the root disk has no constraints";
        let bound = !list(disk.get("constraints")).is_empty();
        faults.unless(!(root && bound), &format!("{path}/persistent"), error);
        let most = disk["maxSize"].as_i64();
        let error = "only mounted disks have a largest size";
        faults.unless(
            most.is_none() || disk["type"] == "mount",
            &format!("{path}/persistent"),
            error,
        );
        let error = "the largest size is smaller than the size";
        faults.unless(most.is_none_or(|most| most > size), &format!("{path}/persistent"), error);
    } else if volume.get("external").is_some() {
        let enabled = customs.features.iter().any(|feature| feature == "external_volumes");
        let error = "the feature external_volumes is not enabled";
        faults.unless(enabled, path, error);
        let named = volume["external"]["name"].as_str().is_some_and(|name| !name.is_empty());
        faults.unless(named, &format!("{path}/external/name"), "must not be empty");
        let provided = volume["external"].get("provider").is_some();
        faults.unless(provided, &format!("{path}/external/provider"), "not defined");
    } else if let Some(secret) = volume["secret"].as_str() {
        let known = app.get("secrets").is_some_and(|all| all.get(secret).is_some());
        faults.unless(known, path, "there is no such secret");
    }
}
