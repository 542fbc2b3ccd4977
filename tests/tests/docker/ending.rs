//! How instances end: gently first, for certain in the end, and once begun whoever is killed over it.

use std::time::Duration;

use evenkeel::backend::Backend;
use evenkeel::backend::docker::{DockerBackend, DockerConfig};
use evenkeel::bell::Doorbell;
use evenkeel::clock::Clock;
use evenkeel::model::{Slot, State, Step};
use evenkeel_tests::conformance::{Oracle, instances, stop, until};
use evenkeel_tests::docker::{h1, local, shell, watch};

use super::{ready, step};

#[tokio::test]
async fn stopping_is_graceful_first_and_certain_in_the_end() {
    let rig = ready().await;
    let deaf = shell("trap '' TERM; while :; do sleep 0.1; done");
    rig.backend.apply(&Step::Start(step(&rig, 1, deaf))).await.unwrap();
    let listens = shell("trap 'exit 0' USR1; echo listening; while :; do sleep 0.1; done");
    rig.backend.apply(&Step::Start(step(&rig, 2, listens))).await.unwrap();
    let [deaf, listens] = &instances(&rig.backend, &h1(), "web")[..] else { panic!("not two") };
    let (deaf, listens) = if deaf.slot == Slot(1) { (deaf, listens) } else { (listens, deaf) };

    // The first process of a container ignores a signal that it has not asked for yet.
    while !logs(&listens.id.0).contains("listening") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let begun = tokio::time::Instant::now();
    let mut gentle = stop(&h1(), listens, Duration::from_secs(30));
    if let Step::Stop { signal, .. } = &mut gentle {
        *signal = "SIGUSR1".into();
    }
    rig.backend.apply(&gentle).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(15), "the grace was waited for in full");

    let begun = tokio::time::Instant::now();
    rig.backend.apply(&stop(&h1(), deaf, Duration::from_secs(2))).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(2), "it was killed before its grace was over");
    assert_eq!(rig.count().await, 0);
}

fn logs(id: &str) -> String {
    let out = std::process::Command::new("docker").args(["logs", id]).output().unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Whoever begins an end may be killed over it. The next one must not count on an instance that was told to end, and must not
/// tell it again.
#[tokio::test]
async fn an_end_that_was_begun_is_seen_and_seen_through_by_whoever_comes_next() {
    let rig = ready().await;
    // It ends five seconds after its start, whatever it is told.
    let slow = "trap 'echo told' TERM; echo listening; n=0; \
                while [ $n -lt 50 ]; do sleep 0.1; n=$((n+1)); done";
    rig.backend.apply(&Step::Start(step(&rig, 1, shell(slow)))).await.unwrap();
    let one = instances(&rig.backend, &h1(), "web").remove(0);
    while !logs(&one.id.0).contains("listening") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let step = stop(&h1(), &one, Duration::from_secs(30));
    let told = async {
        while !logs(&one.id.0).contains("told") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        ended = rig.backend.apply(&step) => panic!("it ended at once: {ended:?}"),
        () = told => {}
    }
    let next = DockerBackend::new(
        rig.owner.clone(),
        Doorbell::new(),
        Clock::real(),
        DockerConfig::default(),
    );
    next.watch(watch(&[("h1", local())], std::collections::BTreeMap::new()));
    let seen = until(&next, &h1(), "it is seen to be ending", |v| {
        v.instances.iter().any(|i| i.state == State::Ending)
    })
    .await;
    assert_eq!((&seen.instances[0].id, seen.instances[0].slot), (&one.id, Slot(1)));
    let ended = async {
        let all =
            tokio::process::Command::new("docker").args(["logs", "--follow", &one.id.0]).output();
        String::from_utf8_lossy(&all.await.unwrap().stdout).into_owned()
    };
    let (logs, stopped) = tokio::join!(ended, next.apply(&step));
    stopped.unwrap();
    assert_eq!(logs.matches("told").count(), 1, "{logs}");
    assert_eq!(rig.count().await, 0);
}
