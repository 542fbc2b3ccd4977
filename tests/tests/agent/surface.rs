//! Everything around an instance, and what the agent says: ports, secrets, networks, API, plan.

use std::time::Duration;

use evenkeel_tests::agent::{
    Bed, LONG, TOY_2, find, free_port, http, settled, throughout, until, waits,
};
use evenkeel_tests::docker::TEST;
use tokio::time::Instant;

#[tokio::test]
async fn plan_says_what_would_be_done_and_does_nothing() {
    let bed = Bed::new().await;
    let web = bed.service("web", 2);
    bed.repo.put(&web);
    let (code, plans, said) = bed.plan();
    assert_eq!((code, plans[0].steps.len()), (2, 2), "{said}");
    assert!(plans[0].steps.iter().all(|s| s.kind == "start"), "{said}");
    assert!(bed.all().await.is_empty(), "a plan changes nothing");
    assert!(!bed.state.exists(), "a plan leaves nothing behind");

    let which = bed.which();
    let mut args: Vec<&str> = vec!["run", "--once", "--listen", "off"];
    args.extend(which.iter().map(String::as_str));
    let out = bed.evenkeel(&args);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(0), "{said}");
    let ids = bed.ids(&web).await;
    assert_eq!(ids.len(), 2);
    let (code, _, said) = bed.plan();
    assert_eq!(code, 0, "{said}");

    bed.repo.put(&web.replicas(3).image(TOY_2));
    let (code, plans, said) = bed.plan();
    assert_eq!(code, 2, "{said}");
    assert!(plans[0].steps.iter().all(|s| s.kind == "start"), "it would stop who serves: {said}");
    assert!(plans[0].steps.iter().any(|s| s.reason == "update"), "{said}");
    assert_eq!(bed.ids(&web).await, ids);

    bed.repo.write("broken.yaml", "kind: ScalingService\n");
    bed.repo.commit("broken");
    let (code, _, said) = bed.plan();
    assert_eq!(code, 1, "{said}");
    let out = bed.evenkeel(&args);
    assert_eq!(out.status.code(), Some(1), "once with a problem is no success");
    assert_eq!(bed.ids(&web).await.len(), 3, "the others proceed");
    std::fs::remove_dir_all(&bed.repo.path).unwrap();
    let (code, _, said) = bed.plan();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("no git repository"), "{said}");
}

/// Without an engine there is nothing to wait for, with documents or without.
#[tokio::test]
async fn once_ends_where_no_engine_answers_and_says_so() {
    let bed = Bed::new().await;
    let nowhere = bed.dir().join("nowhere.sock");
    let fleet = format!(
        "apiVersion: evenkeel.dev/v1alpha1\nkind: Fleet\nmetadata: {{name: default}}\nspec: {{backend: {{docker: {{hosts: \
         [{{name: away, endpoint: \"unix://{}\"}}]}}}}}}\n",
        nowhere.display()
    );
    bed.repo.write("fleet.yaml", &fleet);
    bed.repo.commit("a fleet without services");
    let which = bed.which();
    let mut args: Vec<&str> = vec!["run", "--once", "--listen", "off"];
    args.extend(which.iter().map(String::as_str));
    for service in [None, Some(bed.service("web", 1))] {
        if let Some(service) = service {
            bed.repo.put(&service);
        }
        let begun = Instant::now();
        let out = bed.evenkeel(&args);
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{said}");
        let says = "host away of fleet default has not answered for 30 s";
        assert!(said.contains(says), "{said}");
        assert!(begun.elapsed() < 3 * LONG, "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn published_ports_count_up_and_step_over_what_is_taken() {
    let bed = Bed::new().await;
    // Nobody promises that three ports in a row are free, so one of them is held on purpose.
    let base = free_port();
    let mut web = bed.service("web", 2);
    web.more = String::new();
    let text = web
        .to_string()
        .replace("containerPort: 8080}", &format!("containerPort: 8080, publish: {base}}}"));
    bed.repo.write("web.yaml", text);
    let commit = bed.repo.commit("publish");
    let mut agent = bed.agent();
    let status = agent.settled(&web, &commit).await;
    let it = find(&status, &web).unwrap();
    let ports: Vec<u16> = it.instances.iter().flat_map(|i| i.published.clone()).collect();
    assert_eq!(ports.len(), 2, "{ports:?}");
    for port in ports {
        let at = format!("127.0.0.1:{port}");
        let said = http(&at, "GET", "/healthz", &[], "").await;
        assert!(said.is_some_and(|(code, _)| code == 200), "{at}");
    }
    bed.nothing_left();
    agent.kill();
    drop(agent);

    // A port that something outside of Docker holds: the engine says so, and so does the status.
    let held = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let one = bed.service("one", 1);
    let text = one
        .to_string()
        .replace("containerPort: 8080}", &format!("containerPort: 8080, publish: {port}}}"));
    bed.repo.write("one.yaml", text);
    let commit = bed.repo.commit("a port that is taken");
    let mut agent = bed.agent();
    let status = agent.until("it says which port", |s| waits(s).contains(&port.to_string())).await;
    println!("{}", waits(&status));
    assert!(settled(&status, &web, &commit), "the other goes on");
    assert!(bed.of(&one).await.iter().all(|c| c.state != "running"));
    drop(held);
    agent.settled(&one, &commit).await;
    assert!(bed.of(&one).await.len() == 1, "debris is left");
    bed.nothing_left();
}

#[tokio::test]
async fn a_changed_secret_rolls_and_its_value_is_shown_nowhere() {
    let bed = Bed::new().await;
    let secrets = bed.dir().join("secrets");
    let file = secrets.join("app/token");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let (first, second) = ("first-Xq7-value", "second-Zw9-value");
    std::fs::write(&file, format!("{first}\n")).unwrap();
    let web = bed.service("web", 2);
    let text =
        web.to_string().replace("env: []", "env: [{name: TOKEN, secret: {name: app, key: token}}]");
    bed.repo.write("web.yaml", text);
    let commit = bed.repo.commit("secret");
    let args = ["--interval", "1s", "--secrets", secrets.to_str().unwrap()];
    let mut agent = bed.agent_with(&args);
    agent.settled(&web, &commit).await;
    let before = bed.of(&web).await;
    let env = |value: &str| format!("TOKEN={value}");
    let has = async |id: &str, value: &str| {
        let found = bed.docker.inspect_container(id, None).await.unwrap();
        let labels = format!("{:?}", found.config.as_ref().unwrap().labels);
        assert!(!labels.contains(value), "a secret is in a label");
        found.config.unwrap().env.unwrap().contains(&env(value))
    };
    assert!(has(&before[0].id, first).await);

    // A restart changes nothing.
    agent.kill();
    let mut agent = bed.agent_with(&args);
    agent.settled(&web, &commit).await;
    assert_eq!(bed.of(&web).await, before);

    std::fs::write(&file, second).unwrap();
    until("the new value runs", LONG, async || {
        let now = bed.of(&web).await;
        let mut all = now.len() == 2 && now.iter().all(|c| c.hash != before[0].hash);
        for c in &now {
            all = all && c.state == "running" && has(&c.id, second).await;
        }
        all.then_some(())
    })
    .await;
    agent.settled(&web, &commit).await;
    for path in ["/api/v1/status", "/api/v1/plan", "/api/v1/events", "/metrics"] {
        let (_, body) = agent.get(path).await.unwrap();
        assert!(!body.contains(first) && !body.contains(second), "a secret is in {path}");
    }
    assert!(!agent.log().contains(first) && !agent.log().contains(second), "in the log");
    for entry in std::fs::read_dir(&bed.state).unwrap().flatten() {
        if let Ok(bytes) = std::fs::read(entry.path()) {
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains(first) && !text.contains(second), "{:?}", entry.path());
        }
    }
    let events = agent.get("/api/v1/events").await.unwrap().1;
    assert!(events.contains("secret") || events.contains("TOKEN"), "the reason is said: {events}");

    // A secret that is gone holds the service; it is no reason to stop anything.
    let now = bed.of(&web).await;
    std::fs::remove_file(&file).unwrap();
    let status = agent
        .until("it says which secret", |s| {
            s.source.as_ref().is_some_and(|s| s.problems.iter().any(|p| p.message.contains("app")))
        })
        .await;
    assert!(!format!("{status:?}").contains(second));
    assert_eq!(bed.of(&web).await, now);
}

#[tokio::test]
async fn a_webhook_makes_a_commit_known_at_once() {
    use hmac::{KeyInit as _, Mac as _};
    let bed = Bed::new().await;
    let secret = bed.dir().join("hook");
    std::fs::write(&secret, "It's a Secret\n").unwrap();
    let web = bed.service("web", 1);
    let commit = bed.repo.put(&web);
    let file = secret.to_str().unwrap();
    let mut agent = bed.agent_with(&["--interval", "1h", "--webhook-secret-file", file]);
    agent.settled(&web, &commit).await;

    let two = web.replicas(2);
    let commit = bed.repo.put(&two);
    let body = "{\"ref\": \"refs/heads/main\"}";
    let sign = |key: &str| {
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(key.as_bytes()).unwrap();
        mac.update(body.as_bytes());
        format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
    };
    for headers in [vec![], vec![("X-Hub-Signature-256", sign("another secret"))]] {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let (code, said) = agent.post("/webhook", &headers, body).await;
        assert_eq!(code, 401, "{said}");
    }
    throughout(Duration::from_secs(2), async || assert_eq!(bed.all().await.len(), 1)).await;
    let good = sign("It's a Secret");
    let rung = Instant::now();
    let (code, said) = agent.post("/webhook", &[("X-Hub-Signature-256", &good)], body).await;
    assert_eq!(code, 202, "{said}");
    until("it is acted upon", LONG, async || (bed.all().await.len() > 1).then_some(())).await;
    let took = rung.elapsed();
    println!("webhook to the new container: {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    agent.settled(&two, &commit).await;
    bed.nothing_left();
}

#[tokio::test]
async fn the_probes_of_the_agent_and_its_metrics_say_what_is() {
    let bed = Bed::new().await;
    let web = bed.service("web", 2);
    // Nothing there yet: alive, not ready.
    let away = bed.dir().join("away");
    std::fs::rename(&bed.repo.path, &away).unwrap();
    let mut agent = bed.agent();
    until("it answers", LONG, async || agent.get("/livez").await.filter(|(code, _)| *code == 200))
        .await;
    let (code, said) = agent.get("/readyz").await.unwrap();
    assert_eq!(code, 503, "{said}");
    std::fs::rename(&away, &bed.repo.path).unwrap();
    let commit = bed.repo.put(&web);
    agent.settled(&web, &commit).await;
    let (code, said) = agent.get("/readyz").await.unwrap();
    assert_eq!(code, 200, "{said}");
    let (code, metrics) = agent.get("/metrics").await.unwrap();
    assert_eq!(code, 200);
    for part in ["evenkeel_passes_total", "evenkeel_host_up", "# EOF", &web.name] {
        assert!(metrics.contains(part), "{part} is missing:\n{metrics}");
    }
    assert!(
        metrics.lines().any(|l| l.contains("kind=\"start\"") && l.ends_with(" 2")),
        "{metrics}"
    );
    // A pass that finds nothing to do makes no step.
    let steps = |text: &str| -> Vec<String> {
        text.lines().filter(|l| l.starts_with("evenkeel_steps")).map(str::to_owned).collect()
    };
    let events = bed.events().await;
    let before = steps(&metrics);
    throughout(Duration::from_secs(4), async || {
        let (_, now) = agent.get("/metrics").await.unwrap();
        assert_eq!(steps(&now), before);
    })
    .await;
    assert_eq!(events.all().await, []);
    let cli = bed.evenkeel(&["status", "--agent", &format!("http://127.0.0.1:{}", agent.port)]);
    let said = String::from_utf8_lossy(&cli.stdout);
    assert!(cli.status.success() && said.contains(&web.name), "{said}");
    // A second one at the same address says what to do.
    let mut twin = bed.which();
    twin[3] = bed.dir().join("twin").to_str().unwrap().into();
    let listen = format!("127.0.0.1:{}", agent.port);
    let mut args: Vec<&str> = vec!["run", "--listen", &listen];
    args.extend(twin.iter().map(String::as_str));
    let out = bed.evenkeel(&args);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1));
    assert!(said.contains("--listen"), "{said}");
}

#[tokio::test]
async fn networks_come_and_go_and_volumes_stay() {
    let bed = Bed::new().await;
    let (front, back, theirs) = (bed.name("front"), bed.name("back"), bed.name("theirs"));
    let volume = bed.name("data");
    let request = bollard::models::NetworkCreateRequest {
        name: theirs.clone(),
        labels: Some([(TEST.to_owned(), bed.owner.clone())].into()),
        ..Default::default()
    };
    bed.docker.create_network(request).await.unwrap();
    let web = bed
        .service("web", 2)
        .more(&format!("networks: [{front}, {back}, {theirs}]"))
        .more(&format!("volumes: [{{name: data, mountPath: /data, volume: {volume}}}]"));
    let commit = bed.repo.put(&web);
    let mut agent = bed.agent();
    agent.settled(&web, &commit).await;
    let labels = async |name: &str| {
        let found = bed
            .docker
            .inspect_network(name, None::<bollard::query_parameters::InspectNetworkOptions>);
        found.await.ok().map(|n| n.labels.unwrap_or_default())
    };
    for name in [&front, &back] {
        let labels = labels(name).await.unwrap();
        assert_eq!(labels["evenkeel.dev/owner"], bed.owner);
    }
    let id = &bed.of(&web).await[0].id;
    let found = bed.docker.inspect_container(id, None).await.unwrap();
    assert_eq!(found.network_settings.unwrap().networks.unwrap().len(), 3);
    assert!(found.mounts.unwrap().iter().any(|m| m.name.as_deref() == Some(&*volume)));

    let mut plain = bed.service("web", 2).more(&format!("networks: [{front}]"));
    plain.rollout = "maxSurge: 2".into();
    let commit = bed.repo.put(&plain);
    agent.settled(&plain, &commit).await;
    until("the unused network is removed", LONG, async || {
        labels(&back).await.is_none().then_some(())
    })
    .await;
    assert!(labels(&front).await.is_some() && labels(&theirs).await.is_some());
    assert!(bed.docker.inspect_volume(&volume).await.is_ok(), "volumes are never removed");
    bed.nothing_left();
}

#[tokio::test]
async fn the_stop_signal_is_sent_and_the_grace_is_given() {
    let bed = Bed::new().await;
    let mut web = bed.service("web", 1);
    web.termination = "drain: 0s, grace: 2s, signal: SIGUSR1".into();
    let mut deaf = bed.service("deaf", 1).env("TOY_IGNORE_TERM", "1");
    deaf.termination = "drain: 0s, grace: 2s".into();
    let mut kind = bed.service("kind", 1);
    kind.termination = "drain: 0s, grace: 30s".into();
    let mut commit = String::new();
    for s in [&web, &deaf, &kind] {
        commit = bed.repo.put(s);
    }
    let mut agent = bed.agent();
    for s in [&web, &deaf, &kind] {
        agent.settled(s, &commit).await;
    }
    let config = bed.docker.inspect_container(&bed.ids(&web).await["1"], None).await.unwrap();
    assert_eq!(config.config.unwrap().stop_signal.as_deref(), Some("SIGUSR1"));
    let events = bed.events().await;
    for s in [&deaf, &kind] {
        let none = s.replicas(0);
        let begun = Instant::now();
        let commit = bed.repo.put(&none);
        agent.settled(&none, &commit).await;
        until("it is gone", LONG, async || bed.of(s).await.is_empty().then_some(())).await;
        let took = begun.elapsed();
        let kills = events.count("kill", s).await;
        if s.name == deaf.name {
            assert!(took > Duration::from_secs(2), "{took:?}: the grace was not given");
            assert_eq!(kills, 2, "SIGTERM, then SIGKILL");
        } else {
            assert!(took < Duration::from_secs(20), "{took:?}: it went on its own");
            assert_eq!(kills, 1, "SIGTERM is enough");
        }
    }
    bed.nothing_left();
}
