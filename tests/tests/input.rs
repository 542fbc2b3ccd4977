//! Bad input through the real binary: every problem is named with its place and its way out, and
//! what runs goes on running.
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use evenkeel::report::view::StatusView;
use evenkeel_tests::agent::{Agent, Bed, LONG, find, free_port, settled, until, waits};
use evenkeel_tests::proxy::parrot;

const HEAD: &str = "apiVersion: evenkeel.dev/v1alpha1\nkind: ScalingService\n";

/// A document, where its problem is, and words of the message and of its hint.
type Case = (&'static str, String, (usize, usize), &'static str, &'static str);

fn cases() -> Vec<Case> {
    let service = |spec: &str| format!("{HEAD}metadata: {{name: web}}\nspec:\n{spec}");
    vec![
        ("typo", service("  image: a:1\n  replcas: 3\n"), (6, 3), "replcas", "replicas"),
        ("no-image", service("  replicas: 3\n"), (0, 0), "image", ""),
        ("word", service("  image: a:1\n  replicas: three\n"), (6, 13), "three", ""),
        ("many", service("  image: a:1\n  replicas: 99999999\n"), (6, 13), "99999999", ""),
        ("negative", service("  image: a:1\n  replicas: -1\n"), (6, 13), "-1", ""),
        (
            "kind",
            HEAD.replace("ScalingService", "ScalingServise"),
            (2, 7),
            "ScalingServise",
            "ScalingService",
        ),
        ("version", HEAD.replace("v1alpha1", "v9"), (1, 13), "v9", "v1alpha1"),
        ("twice", service("  image: a:1\n  image: b:1\n"), (6, 3), "image", ""),
        ("yaml", "a: [1, 2\nb: }\n".into(), (0, 0), "", ""),
        ("tabs", format!("{HEAD}metadata:\n\tname: web\n"), (0, 0), "", ""),
        (
            "name",
            service("  image: a:1\n").replace("name: web", "name: Web_1"),
            (3, 0),
            "Web_1",
            "",
        ),
        ("duration", service("  image: a:1\n  termination: {grace: 10}\n"), (6, 0), "10", ""),
        ("fleet", service("  image: a:1\n  fleet: nowhere\n"), (6, 10), "nowhere", ""),
        ("list", "- a\n- b\n".into(), (1, 1), "", ""),
        ("bomb", "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n".into(), (0, 0), "", ""),
    ]
}

#[tokio::test]
async fn check_names_every_problem_with_its_place() {
    let bed = Bed::new().await;
    let all = bed.dir().join("all");
    fs::create_dir(&all).unwrap();
    for (name, text, (line, column), message, hint) in cases() {
        let dir = bed.dir().join(name);
        fs::create_dir(&dir).unwrap();
        let file = dir.join("bad.yaml");
        fs::write(&file, &text).unwrap();
        fs::write(all.join(format!("{name}.yaml")), &text).unwrap();
        let out = bed.evenkeel(&["check", file.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(out.status.code(), Some(1), "{name}: {said}");
        let path = file.display();
        let place = match (line, column) {
            (0, _) => format!("{path}:"),
            (_, 0) => format!("{path}:{line}:"),
            _ => format!("{path}:{line}:{column}:"),
        };
        let (head, tail) = said.split_once("hint:").unwrap_or((&said, ""));
        assert!(head.contains(&place), "{name}: no {place} in\n{said}");
        assert!(head.contains(message), "{name}: {said}");
        assert!(hint.is_empty() || tail.contains(hint), "{name}: no hint {hint} in\n{said}");
        assert!(!said.contains("panicked"), "{said}");
        let json = bed.evenkeel(&["check", file.to_str().unwrap(), "-o", "json"]);
        let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(json.status.code(), Some(1), "{name}: {value}");
    }
    // All at once.
    let out = bed.evenkeel(&["check", all.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&out.stdout);
    for (name, ..) in cases() {
        assert!(said.contains(&format!("{name}.yaml:")), "{name} is missing:\n{said}");
    }
    let good = bed.dir().join("good.yaml");
    fs::write(&good, bed.service("web", 1).to_string()).unwrap();
    let out = bed.evenkeel(&["check", good.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stdout));
    let out = bed.evenkeel(&["check", "/no/such/file"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("hint:"));
}

fn fleet(name: &str, endpoint: &str) -> String {
    format!(
        "apiVersion: evenkeel.dev/v1alpha1
kind: Fleet
metadata: {{name: {name}}}
spec: {{backend: {{docker: {{hosts: [{{name: h-{name}, endpoint: \"{endpoint}\"}}]}}}}}}
"
    )
}

#[tokio::test]
async fn an_endpoint_that_is_not_docker_is_named_and_the_others_proceed() {
    let bed = Bed::new().await;
    let (http, _http) =
        parrot(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello")
            .await;
    let (garbage, _garbage) = parrot(b"\x00\x01\xffSSH-2.0-nonsense\r\n{{{").await;
    let (missing, _missing) =
        parrot(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    let refused = format!("127.0.0.1:{}", free_port());
    let nowhere = bed.dir().join("no.sock").display().to_string();
    let cases = [
        ("http", format!("tcp://{http}")),
        ("garbage", format!("tcp://{garbage}")),
        ("missing", format!("tcp://{missing}")),
        ("refused", format!("tcp://{refused}")),
        ("nowhere", format!("unix://{nowhere}")),
    ];
    for (name, endpoint) in &cases {
        bed.repo.write(&format!("fleet-{name}.yaml"), fleet(name, endpoint));
        let service = bed.service(name, 1).more(&format!("fleet: {name}"));
        bed.repo.write(&format!("service-{name}.yaml"), service.to_string());
    }
    let web = bed.service("web", 2);
    let commit = bed.repo.put(&web);
    let mut agent = bed.agent();
    agent.settled(&web, &commit).await;
    let problem = |s: &StatusView, fleet: &str| {
        let host = s.fleets.iter().find(|f| f.name == fleet).and_then(|f| f.hosts.first());
        host.filter(|h| h.state != "up").and_then(|h| h.problem.clone())
    };
    let status = agent
        .until("every bad host is named", |s| cases.iter().all(|(n, _)| problem(s, n).is_some()))
        .await;
    for (name, endpoint) in &cases {
        let said = problem(&status, name).unwrap();
        println!("{endpoint}: {said}");
        assert!(!said.is_empty() && said.len() < 600, "{said}");
    }
    // Those beside them are still looked after.
    let before = bed.ids(&web).await;
    bed.kill(&before["1"]).await;
    until("it is healed", LONG, async || {
        let now = bed.of(&web).await;
        (now.len() == 2 && now.iter().all(|c| c.state == "running")).then_some(())
    })
    .await;
    assert_eq!(agent.get("/livez").await.unwrap().0, 200);
    assert_eq!(bed.all().await.len(), 2);
    let (code, plans, said) = bed.plan();
    assert_ne!(code, -1, "{said}");
    assert_eq!(plans.len(), cases.len() + 1, "{said}");
    assert!(said.contains("warning: host h-refused"), "{said}");
}

/// An installation whose service `web` runs.
async fn running(bed: &Bed) -> (evenkeel_tests::agent::Service, Agent) {
    let web = bed.service("web", 2);
    let commit = bed.repo.put(&web);
    let mut agent = bed.agent();
    agent.settled(&web, &commit).await;
    (web, agent)
}

/// What it is, where its problem is, and how it comes into the repository.
type Odd<'a> = (&'a str, &'a str, Box<dyn Fn() + 'a>);

#[tokio::test]
async fn odd_things_in_a_repository_are_problems_and_nothing_is_pruned_for_them() {
    let bed = Bed::new().await;
    let (web, mut agent) = running(&bed).await;
    let before = bed.all().await;
    let file = format!("{}.yaml", web.name);

    // A library beside it, to be a submodule.
    let library = Bed::new().await;
    library.repo.write("api.yaml", bed.service("api", 1).to_string());
    library.repo.commit("library");
    let from = library.repo.path.to_str().unwrap().to_owned();
    let outside = bed.dir().join("outside.yaml");
    fs::write(&outside, bed.service("outside", 1).to_string()).unwrap();

    let odd: Vec<Odd<'_>> = vec![
        (
            "submodule",
            "lib",
            Box::new(|| {
                bed.repo.git(&["submodule", "add", "--quiet", "--force", &from, "lib"]);
            }),
        ),
        (
            "a link out of the tree",
            "link.yaml",
            Box::new(|| {
                symlink(&outside, bed.repo.path.join("link.yaml")).unwrap();
            }),
        ),
        (
            "a link to nowhere",
            "dangling.yaml",
            Box::new(|| {
                symlink("not-there.yaml", bed.repo.path.join("dangling.yaml")).unwrap();
            }),
        ),
        (
            "a huge file",
            "huge.yaml",
            Box::new(|| {
                bed.repo.write("huge.yaml", "# long\n".repeat(400_000));
            }),
        ),
        (
            "invalid UTF-8",
            "latin.yaml",
            Box::new(|| {
                bed.repo.write("latin.yaml", b"kind: \xe4\xf6\xfc\n");
            }),
        ),
        (
            "a NUL",
            "nul.yaml",
            Box::new(|| {
                bed.repo.write("nul.yaml", b"kind: a\x00b\n");
            }),
        ),
        (
            "one that is deep",
            "deep.yaml",
            Box::new(|| {
                bed.repo.write("deep.yaml", "[".repeat(100_000));
            }),
        ),
    ];
    for (what, path, make) in &odd {
        bed.repo.clear();
        // Its own document is gone too: without the problem, this would be a removal.
        make();
        let other = bed.service("other", 0);
        bed.repo.write("other.yaml", other.to_string());
        let commit = bed.repo.commit(what);
        let status = agent.planned(&commit).await;
        let problems = status.source.clone().unwrap().problems;
        assert!(problems.iter().any(|p| p.path.starts_with(path)), "{what}: {problems:?}");
        for p in &problems {
            println!("{what}: {}:{}:{}: {}", p.path, p.line, p.column, p.message);
            assert!(p.message.len() < 1000 && !p.message.is_empty(), "{p:?}");
        }
        assert!(waits(&status).contains("prune-in-doubt"), "{what}: {}", waits(&status));
        assert_eq!(bed.all().await, before, "{what}");
        bed.repo.git(&["rm", "-r", "-q", "-f", "--ignore-unmatch", "lib", ".gitmodules"]);
        let _ = fs::remove_dir_all(bed.repo.path.join(".git/modules"));
    }
    bed.repo.clear();
    bed.repo.write(&file, web.to_string());
    let commit = bed.repo.commit("mended");
    agent.settled(&web, &commit).await;
    assert_eq!(bed.all().await, before);
    bed.nothing_left();
}

#[tokio::test]
async fn thousands_of_files_are_read_and_too_many_are_refused() {
    let bed = Bed::new().await;
    let (web, mut agent) = running(&bed).await;
    let before = bed.all().await;
    for n in 0..3000 {
        let idle = bed.service(&format!("n{n}"), 0);
        bed.repo.write(&format!("many/{n}.yaml"), idle.to_string());
    }
    let commit = bed.repo.commit("thousands");
    let status = agent.settled(&web, &commit).await;
    assert_eq!(status.services.len(), 3001);
    assert!(status.source.unwrap().problems.is_empty());
    assert_eq!(bed.all().await, before);
    for n in 0..10_050 {
        bed.repo.write(&format!("more/{n}.yaml"), "# nothing\n");
    }
    let commit = bed.repo.commit("too many");
    let status = agent.planned(&commit).await;
    let problems = status.source.clone().unwrap().problems;
    println!("{:?}", problems.first());
    assert!(!problems.is_empty(), "what was left out is said");
    assert_eq!(bed.all().await, before);
}

/// A way to damage a file, and its name.
type Damage = (&'static str, fn(&[u8]) -> Vec<u8>);

#[tokio::test]
async fn a_damaged_state_directory_delays_and_breaks_nothing() {
    let bed = Bed::new().await;
    let (web, mut agent) = running(&bed).await;
    let before = bed.all().await;
    let commit = bed.repo.git(&["rev-parse", "HEAD"]);
    let ways: [Damage; 5] = [
        ("empty", |_| Vec::new()),
        ("cut", |b| b[..b.len() / 2].to_vec()),
        ("flipped", |b| {
            b.iter().enumerate().map(|(i, c)| if i % 97 == 50 { c ^ 0x20 } else { *c }).collect()
        }),
        ("noise", |b| b.iter().map(|c| c.wrapping_mul(31)).collect()),
        ("longer", |b| [b, b].concat()),
    ];
    for (what, damage) in ways {
        agent.kill();
        let mut damaged = 0;
        for entry in fs::read_dir(&bed.state).unwrap().flatten() {
            if entry.path().extension().is_some_and(|e| e == "state") {
                let bytes = fs::read(entry.path()).unwrap();
                fs::write(entry.path(), damage(&bytes)).unwrap();
                damaged += 1;
            }
        }
        assert!(damaged >= 2, "the state is not where this test looks for it");
        agent = bed.agent();
        agent.settled(&web, &commit).await;
        assert_eq!(bed.all().await, before, "{what}");
    }
    // Damaged, and the source gone too: nothing is known, so nothing is done.
    agent.kill();
    for entry in fs::read_dir(&bed.state).unwrap().flatten() {
        if entry.path().is_file() {
            fs::write(entry.path(), b"nonsense").unwrap();
        }
    }
    let away = bed.dir().join("away");
    fs::rename(&bed.repo.path, &away).unwrap();
    agent = bed.agent();
    agent
        .until("the source's error is shown", |s| {
            s.source.as_ref().is_some_and(|s| s.error.is_some())
        })
        .await;
    assert_eq!(agent.get("/readyz").await.unwrap().0, 503);
    assert_eq!(bed.all().await, before);
    // The git mirror damaged as well.
    agent.kill();
    fs::rename(&away, &bed.repo.path).unwrap();
    let mut spoilt = 0;
    let mut dirs = vec![bed.state.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.ancestors().nth(1) != Some(&*bed.state) {
                let _ = fs::remove_file(&path);
                fs::write(&path, b"spoilt").unwrap();
                spoilt += 1;
            }
        }
    }
    println!("{spoilt} files of the mirror spoilt");
    agent = bed.agent();
    agent.settled(&web, &commit).await;
    let three = web.replicas(3);
    let commit = bed.repo.put(&three);
    agent.settled(&three, &commit).await;
    bed.nothing_left();
}

#[tokio::test]
async fn two_signals_in_a_row_end_it_in_order() {
    let bed = Bed::new().await;
    let (web, mut agent) = running(&bed).await;
    bed.repo.put(&web.replicas(6));
    until("it begins", LONG, async || (bed.all().await.len() > 2).then_some(())).await;
    agent.signal("TERM");
    agent.signal("TERM");
    let code = agent.ended(Duration::from_secs(20)).await;
    assert_eq!(code, Some(0), "{}", agent.log());
    let all = bed.all().await;
    assert!(all.iter().all(|c| c.state == "running"), "a step was cut in the middle: {all:?}");
    let six = web.replicas(6);
    let commit = bed.repo.git(&["rev-parse", "HEAD"]);
    let mut agent = bed.agent();
    agent.settled(&six, &commit).await;
    let now = bed.all().await;
    assert!(all.iter().all(|c| now.contains(c)), "somebody was restarted");
    // Both signals end it, the other one too.
    agent.signal("INT");
    assert_eq!(agent.ended(Duration::from_secs(20)).await, Some(0));
    assert_eq!(bed.all().await.len(), 6, "what runs goes on running");
}

/// A file system of its own that is full, at the state directory.
struct Full<'a>(&'a Bed);

impl<'a> Full<'a> {
    fn mount(bed: &'a Bed) -> Option<Self> {
        fs::create_dir_all(&bed.state).unwrap();
        let at = bed.state.to_str().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k", "tmpfs", at]);
        mount.status().is_ok_and(|s| s.success()).then_some(Self(bed))
    }

    fn fill(&self) {
        let _ = fs::write(self.0.state.join("ballast"), vec![0; 1 << 20]);
    }
}

impl Drop for Full<'_> {
    fn drop(&mut self) {
        let at = self.0.state.to_str().unwrap();
        let _ = std::process::Command::new("umount").args(["-l", at]).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_what_runs_is_looked_after() {
    let bed = Bed::new().await;
    let Some(full) = Full::mount(&bed) else {
        println!("WARNING: not allowed to mount a tmpfs, so a full disk is not tested");
        return;
    };
    let (web, mut agent) = running(&bed).await;
    let before = bed.ids(&web).await;
    full.fill();
    let three = web.replicas(3);
    bed.repo.put(&three);
    bed.kill(&before["1"]).await;
    until("it is healed", LONG, async || {
        let now = bed.of(&web).await;
        let new = now.iter().all(|c| c.id != before["1"] && c.state == "running");
        (now.len() >= 2 && new).then_some(())
    })
    .await;
    let status = agent
        .until("the disk is named, or the commit was read all the same", |s| {
            s.source.as_ref().is_some_and(|s| s.error.is_some())
                || find(s, &web).is_some_and(|s| s.desired == 3)
        })
        .await;
    if let Some(error) = status.source.and_then(|s| s.error) {
        println!("{}", error.message);
        assert!(error.message.contains("space"), "{}", error.message);
    }
    assert_eq!(agent.get("/livez").await.unwrap().0, 200);
    // Room again: the newest commit is followed.
    fs::remove_file(bed.state.join("ballast")).unwrap();
    let commit = bed.repo.git(&["rev-parse", "HEAD"]);
    agent.until("it recovers", |s| settled(s, &three, &commit)).await;
    agent.kill();
    drop(full);
}
