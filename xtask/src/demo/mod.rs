//! The main job, shown: a git repository, an agent, and commits that come true on the local engine.
//!
//! Everything it makes carries an owner of its own, lies in a directory of its own, and is gone at the end.
#![allow(clippy::disallowed_methods, reason = "it shows how long things take")]

mod agent;
mod stage;
mod status;

use anyhow::{Result, bail};

use self::stage::Stage;
use self::status::Status;
use crate::command::cargo;
use crate::images;
use crate::interrupt::Interrupt;
use crate::setup;
use crate::tree::Tree;

const TEST: &str = "test/web.yaml";
const PRODUCTION: &str = "production/web.yaml";

pub(crate) fn demo(tree: &Tree, keep: bool) -> Result<()> {
    setup::ensure(setup::BUILD)?;
    images::build(tree, false)?;
    cargo().args(["build", "--locked", "--package", "evenkeel"]).within(tree.root()).go()?;
    stage::sweep_left()?;
    // Not before: until here Ctrl-C may end us as it ends everybody.
    let interrupt = Interrupt::watch()?;
    let mut stage = Stage::set(tree, &interrupt)?;
    let played = play(&mut stage);
    match &played {
        Ok(()) if keep => {
            stage.leave();
            return Ok(());
        }
        Ok(()) => {}
        Err(_) if interrupt.came() => println!("\ninterrupted"),
        Err(_) => stage.show_log(),
    }
    stage.strike()?;
    played
}

fn play(stage: &mut Stage<'_>) -> Result<()> {
    let (test, production) = (stage.service("web-test"), stage.service("web-production"));

    stage.chapter("everything that gitops-example/ says: 2 instances in test, 4 in production");
    stage.commit("The example")?;
    stage.start_agent()?;
    let four =
        stage.settle(|s| s.has(&test, 2, "evenkeel/toy:1") && s.has(&production, 4, ":1"))?;
    stage.ask(&production, 4, "1")?;

    stage.chapter("scale production to 10, which restarts nobody");
    stage.edit(PRODUCTION, "replicas: 4", "replicas: 10")?;
    stage.push("Production: 10")?;
    let ten = stage.settle(|s| s.has(&production, 10, ":1"))?;
    untouched(&four, &ten, &production, 4)?;
    stage.ask(&production, 10, "1")?;

    stage.chapter("a new version, in test first");
    stage.edit(TEST, "image: evenkeel/toy:1", "image: evenkeel/toy:2")?;
    stage.push("Test: toy 2")?;
    let tested = stage.settle(|s| s.has(&test, 2, ":2") && s.has(&production, 10, ":1"))?;
    untouched(&ten, &tested, &production, 10)?;
    stage.ask(&test, 2, "2")?;
    stage.ask(&production, 10, "1")?;

    stage.chapter("promoted to production, five at a time, never less than 10 available");
    stage.edit(PRODUCTION, "image: evenkeel/toy:1", "image: evenkeel/toy:2")?;
    stage.edit(PRODUCTION, "maxSurge: 1", "maxSurge: 5")?;
    stage.push("Production: toy 2, five at a time")?;
    let promoted = stage.settle(|s| s.has(&production, 10, ":2"))?;
    stage.ask(&production, 10, "2")?;

    stage.chapter("a container is killed, and replaced");
    let victim = promoted.instance(&production, 3)?;
    stage.kill(&victim)?;
    let healed = stage.settle(|s| s.has(&production, 10, ":2") && !s.holds(&victim.id))?;
    untouched(&promoted, &healed, &production, 9)?;
    stage.ask(&production, 10, "2")?;

    stage.chapter("at rest, planning again changes nothing");
    stage.plans_nothing()
}

/// Of the instances before, this many are still there: the same containers, not others of their names.
fn untouched(before: &Status, after: &Status, service: &str, count: usize) -> Result<()> {
    let kept = before.ids(service).filter(|id| after.holds(id)).count();
    if kept != count {
        bail!("{kept} instances of {service} were left alone, not {count}");
    }
    println!("   {count} of {service} were not touched");
    Ok(())
}
