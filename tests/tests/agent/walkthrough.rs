//! The walk-through of one host, docs/walkthroughs/one-host.md, as a whole: five Consul servers, three balancers and ten
//! servers by one commit, while clients keep asking.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use evenkeel_tests::agent::{Bed, LONG, Service, TOY_2, find, http, until};
use evenkeel_tests::balancer::BALANCERS;
use evenkeel_tests::consul::docker;
use evenkeel_tests::docker::TEST;
use evenkeel_tests::load::get as ask;
use evenkeel_tests::traffic::{HOST, Quiet, Show, Stage};

use super::shop::{Cluster, LEAST, RATE, SLOW, begin, front, server, well};

/// Who answers at one balancer, one after the other.
async fn in_turn(at: SocketAddr, path: &str, times: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..times {
        let answer = ask(at, HOST, path).await.unwrap();
        let said: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        all.push(said["instance"].as_str().unwrap().to_owned());
    }
    all
}

/// The servers in the access logs whose line has a text, by balancer, in the order of the lines.
fn logged(bed: &Bed, text: &str) -> BTreeMap<String, Vec<String>> {
    let mount = format!("{}:/logs:ro", bed.name("logs"));
    let label = format!("{TEST}={}", bed.owner);
    let look = format!("cd /logs && grep -F '{text}' *");
    let said = docker(&[
        "run", "--rm", "--label", &label, "--volume", &mount, BALANCERS, "sh", "-c", &look,
    ]);
    let mut all = BTreeMap::<String, Vec<String>>::new();
    for line in said.lines() {
        let (file, entry) = line.split_once(':').unwrap();
        let words = entry.split(' ').filter_map(|word| word.split_once('/'));
        let server =
            words.filter(|(pool, _)| pool.ends_with(".8080")).map(|(_, server)| server).next();
        let server = server.unwrap_or("nobody");
        all.entry(file.to_owned()).or_default().push(server.to_owned());
    }
    all
}

/// Every balancer asks every server in turn, and its log says the same.
async fn everybody_has_his_turn(quiet: &Quiet) {
    let Quiet { bed, front, web, .. } = quiet;
    let servers = web.replicas as usize;
    let mut said = Vec::new();
    for (slot, at) in front.addresses(bed).await {
        let answers = in_turn(at, &format!("/turn-{slot}"), 3 * servers).await;
        let (round, rest) = answers.split_at(servers);
        assert_eq!(round.iter().collect::<BTreeSet<_>>().len(), servers, "{slot}: {answers:?}");
        assert!(rest.chunks(servers).all(|next| next == round), "{slot}: {answers:?}");
        said.push(answers);
    }
    // The hostname that a server says is its container's name with a dash.
    let dashed = |all: &Vec<String>| all.iter().map(|s| s.replace('_', "-")).collect::<Vec<_>>();
    let log = until("the log has it all", LONG, async || {
        let log = logged(bed, "GET /turn-");
        (log.values().map(Vec::len).sum::<usize>() == 9 * servers).then_some(log)
    })
    .await;
    let mut written: Vec<_> = log.values().map(dashed).collect();
    written.sort();
    said.sort();
    assert_eq!(written, said, "what the access log says is what was answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_host_from_the_first_commit_to_the_last() {
    let bed = Bed::new().await;
    let volume = format!("accessLog: {{volume: {}}}", bed.name("logs"));
    let front = front(&bed, 3).more(&volume);
    let (quiet, cluster) = begin(bed, 5, front, 10).await;
    let user_interface = async || {
        for port in &cluster.ui {
            let page = http(&format!("127.0.0.1:{port}"), "GET", "/ui/", &[], "").await?;
            assert_eq!(page.0, 200, "{}", page.1);
        }
        Some(())
    };
    until("each server shows its user interface", LONG, user_interface).await;
    everybody_has_his_turn(&quiet).await;
    let mut show = quiet.ask(RATE, SLOW, LEAST).await;
    let kills = kill_three(&mut show, &cluster).await;
    well(&kills, 10);
    // It is back, and the others take their time to count on it.
    let (all, cluster) = (&cluster, cluster.but(3));
    let scaled = show.stage("scale 10 to 4, 10 and 3", async |show| {
        let edges = show.bed.ids(&show.front.service(&show.bed)).await;
        for replicas in [4, 10, 3] {
            let before = show.bed.ids(&show.web).await;
            show.settle_at(replicas).await;
            let now = show.bed.ids(&show.web).await;
            super::same_in_common(&before, &now);
            cluster.gives_just(&show.bed, &show.web).await;
        }
        assert_eq!(show.bed.ids(&show.front.service(&show.bed)).await, edges);
    });
    well(&scaled.await, 10);
    let second = second_service(&mut show, &cluster).await;
    well(&second, 3);
    all.votes().await;
    show.agent.settled(&all.service, &show.commit.clone()).await;
    all.gives_just(&show.bed, &show.web).await;
    show.end().await;
}

async fn kill_three(show: &mut Show, cluster: &Cluster) -> Stage {
    let mut killed = None;
    let mut stage = show
        .stage("server_1, server_4 and the third Consul server killed", async |show| {
            let (before, servers) =
                (show.bed.ids(&show.web).await, show.bed.ids(&cluster.service).await);
            let events = show.bed.events().await;
            let gone = [&before["1"], &before["4"], &servers["3"]].map(String::clone);
            let dies = gone.iter().map(|id| show.bed.kill(id));
            futures::future::join_all(dies).await;
            killed = Some(tokio::time::Instant::now());
            until("they come back", LONG, async || {
                let all = show.bed.all().await;
                let back = |s: &Service| {
                    all.iter().filter(|c| c.service == s.name && c.state == "running").count()
                };
                let whole = |s: &Service| back(s) == s.replicas as usize;
                (gone.iter().all(|id| all.iter().all(|c| c.id != *id))
                    && whole(&show.web)
                    && whole(&cluster.service))
                .then_some(())
            })
            .await;
            show.settled().await;
            cluster.but(3).gives_just(&show.bed, &show.web).await;
            // Three are lost, three are started, and everybody else is as he was.
            for (service, before, gone) in
                [(&show.web, before, &["1", "4"][..]), (&cluster.service, servers, &["3"][..])]
            {
                let now = show.bed.ids(service).await;
                let changed: Vec<&str> = before
                    .iter()
                    .filter(|(slot, id)| now[*slot] != **id)
                    .map(|(slot, _)| &**slot)
                    .collect();
                assert_eq!(changed, gone, "{}", service.name);
                assert_eq!(events.count("start", service).await, gone.len(), "{}", service.name);
            }
        })
        .await;
    // What the killed had in hand; a balancer repeats a GET elsewhere, and may not repeat a POST.
    let killed = killed.unwrap();
    stage.excused = stage.report.excuse(|f| f.begun <= killed);
    let in_hand = usize::try_from(RATE * SLOW / 1000).unwrap();
    assert!(stage.excused <= in_hand, "{stage}");
    stage
}

async fn second_service(show: &mut Show, cluster: &Cluster) -> Stage {
    show.stage("a second service behind the same balancers", async |show| {
        let before =
            (show.bed.ids(&show.web).await, show.bed.ids(&show.front.service(&show.bed)).await);
        let admin = server(&show.bed, &show.front, "admin", "admin.example").image(TOY_2);
        let commit = show.bed.repo.put(&admin);
        show.agent.settled(&admin, &commit).await;
        cluster.gives_just(&show.bed, &admin).await;
        for at in show.front.addresses(&show.bed).await.into_values() {
            for (host, service, version) in [(HOST, "server", "1"), ("admin.example", "admin", "2")]
            {
                let answer = ask(at, host, "/").await.unwrap();
                let said: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
                assert_eq!(
                    (&said["service"], &said["version"]),
                    (&service.into(), &version.into())
                );
            }
        }
        let status = show.agent.status().await.unwrap();
        assert_eq!(find(&status, &show.web).unwrap().available, show.web.replicas);
        let now =
            (show.bed.ids(&show.web).await, show.bed.ids(&show.front.service(&show.bed)).await);
        assert_eq!(now, before, "a second service restarts nobody");
        show.commit = commit;
    })
    .await
}
