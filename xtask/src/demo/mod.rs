//! The main job, shown: the walk-through of one host by git commits, with clients that ask all the while.
//!
//! It plays the documents of docs/walkthroughs/one-host.md. Everything it makes carries an owner of its own, lies in a
//! directory of its own, and is gone at the end. It fails where a promise was not seen to hold.
#![allow(clippy::disallowed_methods, reason = "it shows how long things take")]

mod agent;
mod clients;
mod page;
mod screen;
mod stage;
mod status;
mod sweep;

use std::time::Duration;

use anyhow::{Result, bail};

use self::clients::Counts;
use self::stage::{BALANCERS, CONSULS, Stage};
use self::status::Status;
use crate::command::cargo;
use crate::images;
use crate::interrupt::Interrupt;
use crate::setup;
use crate::tree::Tree;

const SHOP: &str = "shop.yaml";
/// A spec that was as desired for so long is one to come back to.
const PROVEN: Duration = Duration::from_secs(11);
/// Requests after which it is seen whether turns are taken.
const ENOUGH: u64 = 600;

pub(crate) fn demo(tree: &Tree, keep: bool) -> Result<()> {
    setup::ensure(setup::BUILD)?;
    images::build(tree, false)?;
    let build = cargo().args(["build", "--locked", "--package", "evenkeel"]);
    let build =
        build.args(["--package", "evenkeel-tests", "--bin", "evenkeel", "--bin", "clients"]);
    build.within(tree.root()).go()?;
    sweep::left()?;
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
        Err(_) if interrupt.came() => stage.say("\ninterrupted"),
        Err(_) => stage.show_log(),
    }
    stage.strike()?;
    played
}

fn play(stage: &mut Stage<'_>) -> Result<()> {
    let (haproxy, server) = (stage.service("haproxy"), stage.service("server"));
    let (admin, consul) = (stage.service("admin"), stage.consul());

    stage.chapter("one commit: five Consul servers, three balancers, ten servers");
    stage.write(SHOP, &[])?;
    stage.commit("The shop")?;
    stage.start_agent()?;
    let ten = stage.settle(|s| {
        s.runs(&consul, CONSULS.into())
            && s.has(&haproxy, BALANCERS.into(), "balancers:1")
            && s.has(&server, 10, "toy:1")
    })?;
    stage.registered(&server, 10)?;

    stage.chapter("each balancer asks the servers in turn");
    stage.start_clients()?;
    stage
        .until("600 requests", |stage, _| (stage.of_chapter().answered >= ENOUGH).then_some(()))?;
    let turns = stage.of_chapter();
    for line in turns.lines() {
        stage.say(&line);
    }
    if !turns.in_turn(BALANCERS.into(), 10) {
        bail!("the servers were not asked in turn");
    }
    stage.say("   the access log says the same:");
    if stage.access_logs()? != usize::from(BALANCERS) {
        bail!("not every balancer wrote its access log");
    }
    nothing_lost(stage)?;

    stage.chapter("two servers and a Consul server are killed, and come back");
    let victims = [ten.instance(&server, 1)?, ten.instance(&server, 4)?, ten.instance(&consul, 3)?];
    stage.kill(&victims.each_ref())?;
    let healed = stage.settle(|s| {
        s.runs(&consul, CONSULS.into())
            && s.has(&server, 10, "toy:1")
            && victims.iter().all(|v| !s.holds(&v.id))
    })?;
    untouched(stage, &ten, &healed, &server, 8)?;
    untouched(stage, &ten, &healed, &consul, 4)?;
    stage.registered(&server, 10)?;
    nothing_lost(stage)?;

    let mut before = healed;
    for (from, to) in [(10, 4), (4, 10), (10, 3)] {
        stage.chapter(&format!("from {from} servers to {to}"));
        stage.edit(SHOP, &format!("replicas: {from}\n"), &format!("replicas: {to}\n"))?;
        stage.push(&format!("{to} servers"))?;
        let now = stage.settle(|s| s.has(&server, to, "toy:1"))?;
        untouched(stage, &before, &now, &server, from.min(to))?;
        untouched(stage, &before, &now, &haproxy, BALANCERS.into())?;
        stage.registered(&server, usize::try_from(to)?)?;
        nothing_lost(stage)?;
        before = now;
    }

    stage.chapter("a second service behind the same balancers, by host name");
    stage.write("admin.yaml", &[])?;
    stage.push("Admin")?;
    let two = stage.settle(|s| s.has(&admin, 2, "toy:2") && s.has(&server, 3, "toy:1"))?;
    untouched(stage, &before, &two, &server, 3)?;
    stage.registered(&admin, 2)?;
    for (host, want) in [("admin.example", ("admin", "2")), ("shop.example", ("server", "1"))] {
        let said = stage.ask(2, host)?;
        if (said.0.as_str(), said.1.as_str()) != want {
            bail!("{host} leads to {} {}, not to {} {}", said.0, said.1, want.0, want.1);
        }
    }
    nothing_lost(stage)?;

    stage.chapter("a new version, with three available all the while");
    stage.edit(SHOP, "image: evenkeel/toy:1", "image: evenkeel/toy:2")?;
    stage.push("Toy 2")?;
    let new = stage.settle(|s| s.has(&server, 3, "toy:2"))?;
    untouched(stage, &two, &new, &haproxy, BALANCERS.into())?;
    stage.registered(&server, 3)?;
    nothing_lost(stage)?;

    stage.chapter("at rest nothing happens, until the killed Consul server has its vote back");
    let all = usize::from(CONSULS);
    stage.until("all servers of Consul vote", |stage, status| {
        let health = stage.ask_consul("/v1/operator/autopilot/health")?;
        let votes = |s: &&serde_json::Value| s["Voter"] == true && s["Healthy"] == true;
        let votes = health["Servers"].as_array()?.iter().filter(votes).count();
        let ready = status.is_some_and(|s| s.has(&consul, CONSULS.into(), "consul:1"));
        (votes == all && ready && stage.lasts() >= PROVEN).then_some(())
    })?;
    stage.say(&format!("   {all} servers of Consul, {all} votes"));
    stage.plans_nothing()?;
    nothing_lost(stage)?;

    stage.chapter("a release that never becomes healthy is rolled back");
    stage.edit(
        SHOP,
        "image: evenkeel/toy:2\n",
        "image: evenkeel/toy:broken\n  rollout: {progressDeadline: 8s}\n",
    )?;
    stage.push("A bad release")?;
    let back = stage.settle(|s| s.rolled_back(&server, 3))?;
    untouched(stage, &new, &back, &server, 3)?;
    nothing_lost(stage)?;
    stage.edit(SHOP, "image: evenkeel/toy:broken", "image: evenkeel/toy:2")?;
    stage.push("Back to toy 2")?;
    let end = stage.settle(|s| s.has(&server, 3, "toy:2"))?;
    untouched(stage, &new, &end, &server, 3)?;

    stage.plans_nothing()?;
    let all = stage.stop_clients()?;
    let excused = all.failures.len() - all.lost().len();
    stage.say(&format!(
        "\n   {} requests were answered by servers, {}",
        all.answered,
        spoken(excused)
    ));
    judge(&all)
}

fn judge(counts: &Counts) -> Result<()> {
    let lost = counts.lost();
    if lost.is_empty() { Ok(()) } else { bail!("requests were lost: {}", lost.join(", ")) }
}

fn spoken(excused: usize) -> String {
    match excused {
        0 => "none was lost".to_owned(),
        n => format!("{n} died with those who had them in hand, none was lost otherwise"),
    }
}

/// The chapter lost no request.
fn nothing_lost(stage: &mut Stage<'_>) -> Result<()> {
    let counts = stage.of_chapter();
    judge(&counts)?;
    stage.say(&format!("   {} answered, {}", counts.answered, spoken(counts.failures.len())));
    Ok(())
}

/// Of the instances before, this many are still there: the same containers, not others of their names.
fn untouched(
    stage: &mut Stage<'_>,
    before: &Status,
    after: &Status,
    service: &str,
    count: u64,
) -> Result<()> {
    let kept = before.ids(service).filter(|id| after.holds(id)).count();
    if u64::try_from(kept)? != count {
        bail!("{kept} instances of {service} were left alone, not {count}");
    }
    stage.say(&format!("   {count} of {service} were not touched"));
    Ok(())
}
