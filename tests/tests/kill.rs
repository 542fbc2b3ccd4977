//! SIGKILL at any moment of a rollout is an ordinary situation: the agent that comes after it
//! finds its way, and nothing that was not asked for is restarted or left behind.
//!
//! `EVENKEEL_KILLS` is the number of rounds, `EVENKEEL_SEED` repeats a run.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests panic as tests do")]

use std::time::Duration;

use evenkeel_tests::agent::{Bed, Service, TOY, TOY_2, find, http, settled, until};
use tokio::time::Instant;

/// Enough to meet most moments of a rollout, and short enough for every run of the tests.
const ROUNDS: u32 = 20;
/// The latest moment of a kill after a commit, milliseconds.
const LATEST: u64 = 1500;

/// A small generator whose whole state is the seed that is printed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// What the next commit asks for: another image, another number, or another variable.
fn change(web: &Service, round: u32, dice: &mut Dice) -> Service {
    match dice.roll(4) {
        0 => web.image(if web.image == TOY { TOY_2 } else { TOY }),
        1 => web.replicas(if web.replicas == 3 { 2 } else { 3 }),
        2 => web.env("ROUND", &round.to_string()),
        _ => web.image(if web.image == TOY { TOY_2 } else { TOY }).replicas(if web.replicas == 3 {
            4
        } else {
            3
        }),
    }
}

/// Whether a change is one of what an instance is.
fn rolls(before: &Service, after: &Service) -> bool {
    before.image != after.image || before.env != after.env
}

/// Exactly what is asked for, and nothing beside it.
async fn exact(bed: &Bed, web: &Service, steady: &Service) {
    let all = bed.all().await;
    let wanted = web.replicas as usize + steady.replicas as usize;
    assert_eq!(all.len(), wanted, "containers too many or too few: {all:#?}");
    let (of_web, of_steady) = (bed.ids(web).await, bed.ids(steady).await);
    let slots: Vec<String> = (1..=web.replicas).map(|n| n.to_string()).collect();
    assert!(of_web.keys().eq(slots.iter()), "{of_web:?}");
    assert_eq!(of_steady.len(), steady.replicas as usize);
    let mut hashes: Vec<String> = bed.of(web).await.into_iter().map(|c| c.hash).collect();
    hashes.dedup();
    assert_eq!(hashes.len(), 1, "two specs at once: {all:#?}");
    for c in bed.of(web).await {
        assert_eq!(c.image, web.image, "{c:?}");
        let said = http(&c.address, "GET", "/healthz", &[], "").await;
        assert!(said.is_some_and(|(code, _)| code == 200), "{c:?} does not answer");
        let found = bed.docker.inspect_container(&c.id, None).await.unwrap();
        let env = found.config.unwrap().env.unwrap();
        for (name, value) in &web.env {
            assert!(env.contains(&format!("{name}={value}")), "{c:?}: {env:?}");
        }
    }
}

#[tokio::test]
async fn an_agent_killed_at_any_moment_leaves_nothing_wrong() {
    let rounds = number("EVENKEEL_KILLS").map_or(ROUNDS, |n| u32::try_from(n).unwrap());
    let seed = number("EVENKEEL_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("EVENKEEL_SEED={seed} EVENKEEL_KILLS={rounds}");
    let mut dice = Dice(seed);
    let bed = Bed::new().await;
    let steady = bed.service("steady", 2);
    let mut web = bed.service("web", 3);
    web.rollout = "maxSurge: 2, progressDeadline: 60s".into();
    web.termination = "drain: 0s, grace: 2s".into();
    bed.repo.put(&steady);
    let commit = bed.repo.put(&web);
    let mut agent = bed.agent();
    agent.settled(&steady, &commit).await;
    agent.settled(&web, &commit).await;
    let (ids, starts) = (bed.ids(&steady).await, bed.starts(&steady).await);
    let began = Instant::now();
    let (mut midway, mut slowest) = (0, Duration::ZERO);

    for round in 1..=rounds {
        let before = (web.clone(), bed.ids(&web).await, bed.starts(&web).await);
        web = change(&web, round, &mut dice);
        let commit = bed.repo.put(&web);
        // From the moment the agent acts on it, or now and then from the commit itself.
        if dice.roll(4) > 0 {
            until("the commit is acted upon", Duration::from_secs(30), async || {
                agent.status().await.filter(|s| {
                    find(s, &web).is_some_and(|s| s.attempted_revision.as_deref() == Some(&*commit))
                })
            })
            .await;
        }
        let kill_at = Instant::now() + Duration::from_millis(dice.roll(LATEST));
        tokio::time::sleep_until(kill_at).await;
        agent.kill();
        let left = bed.all().await.len();
        midway += u32::from(left != (web.replicas + steady.replicas) as usize);

        let again = Instant::now();
        agent = bed.agent();
        // Now and then it is killed while it finds its way, too.
        if dice.roll(4) == 0 {
            tokio::time::sleep(Duration::from_millis(dice.roll(LATEST))).await;
            agent.kill();
            agent = bed.agent();
        }
        agent.settled(&web, &commit).await;
        let status = agent
            .until("everything is tidy", |s| {
                settled(s, &steady, &commit)
                    && settled(s, &web, &commit)
                    && find(s, &web).is_some_and(|s| s.in_flight.is_empty())
            })
            .await;
        slowest = slowest.max(again.elapsed());
        exact(&bed, &web, &steady).await;
        let names = &find(&status, &web).unwrap().instances;
        assert!(names.iter().all(|i| !i.name.contains('.')), "a name is not tidied: {names:?}");
        assert_eq!(bed.ids(&steady).await, ids, "round {round}: who was not asked to change did");
        assert_eq!(bed.starts(&steady).await, starts, "round {round}: somebody was restarted");
        if round % 20 == 0 {
            println!("{round} rounds in {:?}", began.elapsed());
        }
        let (old, old_ids, old_starts) = before;
        let now = bed.ids(&web).await;
        for (slot, id) in &now {
            if rolls(&old, &web) {
                assert!(!old_starts.contains_key(id), "round {round}: slot {slot} is the old one");
            } else if let Some(was) = old_ids.get(slot) {
                assert_eq!(was, id, "round {round}: slot {slot} was restarted for nothing");
            }
        }
    }
    bed.nothing_left();
    println!(
        "{rounds} kills in {:?}, {midway} of them in the middle of a change; slowest recovery {slowest:?}",
        began.elapsed()
    );
}
