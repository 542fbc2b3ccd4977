//! The report as a reader sees it, over a small world that has one of everything.

mod world;

use super::*;
use crate::model::{HostView, Seen, SpecHash, Subject, Waiting, Why};
use insta::assert_snapshot;
use world::*;

fn json(v: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(v).unwrap()
}

#[test]
fn no_secret_and_no_environment_value_appears_anywhere() {
    let report = full();
    let status = report.status(None);
    let plans = report.plans();
    let p = pass();
    let shown = [
        json(&status),
        json(&plans),
        json(&report.events(0, None, 1000)),
        json(&plan_view(&p.fleet, &p.desired, &p.plan, NOW)),
        text::render_status(&status, 300, false),
        text::render_service(&status, 300, false),
        text::render_plans(&plans.plans, false),
        report.metrics(),
        format!("{report:?}"),
    ];
    for text in shown {
        for hidden in [SECRET, "a-plain-greeting", "an-old-greeting"] {
            assert!(!text.contains(hidden), "{hidden} is shown in\n{text}");
        }
    }
    let because = &plans.plans[0].steps[1].because;
    assert_eq!(
        because,
        "image web:1 → web:2, env.GREETING changed, env.TOKEN changed, env changed (commit 4f2a9c1d3e)"
    );
}

#[test]
fn a_rotated_secret_stays_hidden() {
    let report = full();
    let mut next = pass();
    let mut desired = (*next.desired).clone();
    desired.services.clear();
    next.desired = Arc::new(desired);
    next.plan = Arc::default();
    report.pass(next);
    report.hosts(&fleet_name(), [(host("h1"), format!("late: {SECRET}"))].into());
    assert!(!json(&report.status(None)).contains(SECRET));
}

#[test]
fn the_overview_wide_and_narrow() {
    let mut status = full().status(None);
    status.agent.version = "0".into();
    assert_snapshot!(text::render_status(&status, 140, false), @r#"
    evenkeel 0 · owner shop-a1b2 · up 1m30s
    source  git https://git.example/shop.git branch main at 4f2a9c1d3e "Scale web" by alice, read 12s ago
            cannot be read for 40s: git.example: connection refused, retry in 20s
            hint: is the server up?
            1 problem in the documents; nothing is removed until they are mended
              shop/api.yaml:4:3: unknown field "replica"
                hint: did you mean "replicas"?

    NAME  FLEET  DESIRED  READY  AVAILABLE  UPDATED  IMAGE                             STATUS                                                AGE
    db    shop         1      0          0        0  postgres:18                       stalled: postgres says ••• is wrong                   0s
    web   shop         3      1          1        1  registry.example:5000/shop/web:2  reconciling: host h2 is silent, 1 instances there a…  0s

    converging ████████░░░░░░░░░░░░░░░░ 1 of 3 instances up to date and available

    HOST  FLEET  STATE                 INSTANCES  CPU    MEMORY     PROBLEM
    h1    shop   up                            2  0.2/4  128Mi/8Gi
    h2    shop   silent 12s, draining          1  0.1/4  64Mi/8Gi   no route to host

    waiting
      fleet shop: not removing old: the source is empty; to release it, set the annotation evenkeel.dev/approve-prune: "a1b2" on the fleet

    lately
         0s ago  revision         revision 4f2a9c1d3e: Scale web (alice)
         0s ago  source-failed    the source cannot be read: git.example: connection refused
         0s ago  problem-appeared shop/api.yaml:4:3: unknown field "replica"
         0s ago  attention        service db: stalled: postgres says ••• is wrong
         0s ago  attention        fleet: not removing old: the source is empty; to release it, set the annotation evenkeel.dev/approve-prune: "a1b2" on the fleet
         0s ago  step-began       start web_3 on h1: replicas 2 → 3 (commit 4f2a9c1d3e)
         0s ago  step-failed      start web_1.2 on h1 failed: engine says: bad env TOKEN=••• (1.2s)
    "#);
    assert_snapshot!(text::render_status(&status, 72, false), @r#"
    evenkeel 0 · owner shop-a1b2 · up 1m30s
    source  git https://git.example/shop.git branch main at 4f2a9c1d3e "Scale web" by alice, read 12s ago
            cannot be read for 40s: git.example: connection refused, retry in 20s
            hint: is the server up?
            1 problem in the documents; nothing is removed until they are mended
              shop/api.yaml:4:3: unknown field "replica"
                hint: did you mean "replicas"?

    NAME  DESIRED  READY  AVAILABLE  UPDATED  STATUS                     AGE
    db          1      0          0        0  stalled: postgres says •…  0s
    web         3      1          1        1  reconciling: host h2 is…   0s

    converging ████████░░░░░░░░░░░░░░░░ 1 of 3 instances up to date and available

    HOST  STATE                 INSTANCES  CPU    MEMORY     PROBLEM
    h1    up                            2  0.2/4  128Mi/8Gi
    h2    silent 12s, draining          1  0.1/4  64Mi/8Gi   no route to ho…

    waiting
      fleet shop: not removing old: the source is empty; to release it, set the annotation evenkeel.dev/approve-prune: "a1b2" on the fleet

    lately
         0s ago  revision         revision 4f2a9c1d3e: Scale web (alice)
         0s ago  source-failed    the source cannot be read: git.example: connection refused
         0s ago  problem-appeared shop/api.yaml:4:3: unknown field "replica"
         0s ago  attention        service db: stalled: postgres says ••• is wrong
         0s ago  attention        fleet: not removing old: the source is empty; to release it, set the annotation evenkeel.dev/approve-prune: "a1b2" on the fleet
         0s ago  step-began       start web_3 on h1: replicas 2 → 3 (commit 4f2a9c1d3e)
         0s ago  step-failed      start web_1.2 on h1 failed: engine says: bad env TOKEN=••• (1.2s)
    "#);
}

#[test]
fn one_service_in_detail() {
    let status = full().status(Some(&svc("web")));
    assert_snapshot!(text::render_service(&status, 100, false), @r"
    web on fleet shop  reconciling for 0s
      image      registry.example:5000/shop/web:2
      instances  3 desired · 2 there · 1 up to date · 1 ready · 1 available
      revision   4f2a9c1d3e attempted
      waiting    host h2 is silent, 1 instances there are waited for (at most 8s more)
      under way  start web_3 on h1: replicas 2 → 3 (commit 4f2a9c1d3e) (0s)

    converging ████████░░░░░░░░░░░░░░░░ 1 of 3 instances up to date and available

      INSTANCE  HOST  STATE     HEALTH   TRAFFIC  SPEC     PORTS  AGE
      web_1     h1    running   healthy  serving  current  8080   12m34s
      web_2     h2    running?  healthy  serving  old      8080   12m34s

    lately
         0s ago  step-began       start web_3 on h1: replicas 2 → 3 (commit 4f2a9c1d3e)
         0s ago  step-failed      start web_1.2 on h1 failed: engine says: bad env TOKEN=••• (1.2s)
    ");
    assert!(full().status(Some(&svc("nobody"))).services.is_empty());
}

#[test]
fn a_plan_reads_like_a_plan() {
    let plans = full().plans().plans;
    assert_snapshot!(text::render_plans(&plans, false), @r#"
    fleet shop at revision 4f2a9c1d3e

      db  1 desired · 1 there · 0 up to date · 0 available
        … waiting        stalled: postgres says ••• is wrong

      web  3 desired · 2 there · 1 up to date · 1 available
        + start          web_3    on h1  replicas 2 → 3 (commit 4f2a9c1d3e)
        + start          web_1.2  on h1  image web:1 → web:2, env.GREETING changed, env.TOKEN changed, env changed (commit 4f2a9c1d3e)
        - stop           web_1    on h1  web_1.2 took over
        … waiting        host h2 is silent, 1 instances there are waited for (at most 8s more)

      the fleet itself
        - remove-network old      on h1  no service uses it
        … waiting        not removing old: the source is empty; to release it, set the annotation evenkeel.dev/approve-prune: "a1b2" on the fleet

    plan: 1 to remove-network, 2 to start, 1 to stop; 3 things wait. nothing was changed
    "#);
    let mut quiet = pass();
    let mut plan = (*quiet.plan).clone();
    plan.steps.clear();
    plan.waiting.clear();
    quiet.plan = Arc::new(plan);
    let quiet = plan_view(&quiet.fleet, &quiet.desired, &quiet.plan, NOW);
    assert_snapshot!(text::render_plans(&[quiet], false), @r#"
    fleet shop at revision 4f2a9c1d3e
    nothing to do: 2 services as desired
    "#);
}

/// The shape of the JSON is a contract: a change here is a change for every reader.
#[test]
fn the_json_is_as_promised() {
    let report = full();
    let mut status = report.status(None);
    status.agent.version = "0".into();
    assert_snapshot!("status", json(&status));
    assert_snapshot!("plan", json(&report.plans()));
    assert_snapshot!("events", json(&report.events(0, None, 3)));
}

#[test]
fn what_is_written_is_read_back_and_unknown_fields_are_ignored() {
    let status = full().status(None);
    let back: StatusView = serde_json::from_str(&json(&status)).unwrap();
    assert_eq!(back, status);
    let newer: StatusView =
        serde_json::from_str(r#"{"agent":{"mood":1},"services":[{"phase":"levitating"}]}"#)
            .unwrap();
    assert_eq!(newer.services[0].phase, view::PhaseView::Unknown);
}

#[test]
fn applied_follows_attempted_only_when_the_service_is_as_desired() {
    let report = full();
    let applied = |r: &Report| r.status(Some(&svc("web"))).services[0].applied_revision.clone();
    assert_eq!(applied(&report), None);
    let mut ready = pass();
    let mut plan = (*ready.plan).clone();
    plan.services.insert(svc("web"), status_of(3, 3, Phase::Ready, 2));
    ready.plan = Arc::new(plan.clone());
    ready.at = NOW.plus(Duration::from_secs(30));
    report.pass(ready.clone());
    assert_eq!(applied(&report), Some(revision().0.to_string()));

    let mut desired = (*ready.desired).clone();
    desired.revision = Revision("ffff".into());
    desired.held.insert(svc("web"));
    ready.desired = Arc::new(desired);
    report.pass(ready);
    let web = report.status(Some(&svc("web"))).services.remove(0);
    assert_eq!(web.attempted_revision.as_deref(), Some("ffff"));
    assert_eq!(web.applied_revision, Some(revision().0.to_string()), "a held one stays behind");
    assert_eq!(web.since.0, NOW.plus(Duration::from_secs(30)), "since is when the phase began");
}

fn messages(report: &Report) -> Vec<String> {
    let all = report.events(0, None, 1000).events;
    all.into_iter().map(|e| format!("{}: {}", e.kind, e.message)).collect()
}

#[test]
fn what_changed_between_passes_becomes_events() {
    let clock = Clock::manual(NOW);
    let report = Report::new(clock, OwnerId::new("o").unwrap());
    report.source(source());
    report.pass(pass());
    let mut next = pass();
    let mut plan = (*next.plan).clone();
    plan.services.insert(svc("web"), status_of(3, 3, Phase::Ready, 2));
    plan.services.remove(&svc("db"));
    plan.waiting = vec![Waiting {
        subject: Subject::Service(svc("web")),
        why: Why::Quarantined { hash: SpecHash(9), why: "no progress for 10m".into() },
        until: None,
    }];
    next.plan = Arc::new(plan);
    let flip = |v: &HostView, seen| Arc::new(HostView { seen, ..v.clone() });
    let (h1, h2) = (&pass().world.hosts[&host("h1")], &pass().world.hosts[&host("h2")]);
    next.world.hosts.insert(host("h1"), flip(h1, Seen::Silent { since: NOW }));
    next.world.hosts.insert(host("h2"), flip(h2, Seen::Now));
    report.pass(next.clone());
    let mut gone = source();
    gone.error = Some(SourceError { message: "refused".into(), ..SourceError::default() });
    report.source(gone);
    report.source(source());
    assert_snapshot!(messages(&report).join("\n"), @r#"
    revision: revision 4f2a9c1d3e: Scale web (alice)
    attention: service db: stalled: postgres says ••• is wrong
    attention: fleet: not removing old: the source is empty; to release it, set the annotation evenkeel.dev/approve-prune: "a1b2" on the fleet
    host-lost: host h1 fell silent
    host-returned: host h2 answers again
    phase: web is ready: 3 of 3 available
    gone: db is gone
    rollback: service web: spec 0000000000000009 was rolled back (no progress for 10m) and stays out until the spec changes
    source-failed: the source cannot be read: refused
    source-recovered: the source can be read again
    "#);
    let before = report.events(0, None, 1000);
    report.pass(next);
    assert_eq!(report.events(0, None, 1000), before, "nothing changed and something was said");
}

#[test]
fn a_moved_problem_is_no_news_and_a_mended_one_is() {
    let report = Report::new(Clock::manual(NOW), OwnerId::new("o").unwrap());
    let at = |line| Problem {
        path: "a.yaml".into(),
        line,
        column: 1,
        message: "bad".into(),
        hint: None,
        object: Some("ScalingService/web".into()),
    };
    for problems in [vec![at(3)], vec![at(7)], vec![]] {
        report.source(SourceReport { problems, ..source() });
    }
    assert_snapshot!(messages(&report).join("\n"), @r#"
    revision: revision 4f2a9c1d3e: Scale web (alice)
    problem-appeared: a.yaml:3:1: bad
    problem-gone: a.yaml: mended: bad
    "#);
    let of_web = report.events(0, Some(&svc("web")), 10).events.len();
    assert_eq!(of_web, 2);
}

#[test]
fn a_step_that_ended_replaces_its_beginning() {
    let report = full();
    let kinds: Vec<String> =
        report.events(0, None, 1000).events.into_iter().map(|e| e.kind).collect();
    assert_eq!(kinds.iter().filter(|k| *k == "step-began").count(), 1);
    let web = report.status(Some(&svc("web"))).services.remove(0);
    assert_eq!(web.in_flight.len(), 1);
}

#[test]
fn a_pass_without_news_wakes_nobody() {
    let report = full();
    let mut watching = report.subscribe();
    watching.mark_unchanged();
    report.pass(pass());
    assert!(!watching.has_changed().unwrap());
    let mut other = pass();
    other.plan = Arc::default();
    report.pass(other);
    assert!(watching.has_changed().unwrap());
}

#[test]
fn ready_once_the_source_was_read_and_every_fleet_passed() {
    let report = Report::new(Clock::manual(NOW), OwnerId::new("o").unwrap());
    assert_eq!(report.unready().unwrap(), "the source has not been read yet");
    report.standby(true);
    assert_eq!(report.unready(), None, "who stands by is ready to");
    report.standby(false);
    report.source(source());
    assert!(report.unready().is_some());
    report.fleets([fleet_name(), FleetName::new("other").unwrap()]);
    report.pass(pass());
    assert_eq!(report.unready().unwrap(), "no pass over fleet other has ended yet");
    report.fleets([fleet_name()]);
    assert_eq!(report.unready(), None);
    report.fleets([]);
    assert_eq!(report.unready(), None, "an empty repository is nothing to wait for");
    assert!(report.status(None).services.is_empty(), "a fleet that is gone is shown no longer");
}

#[test]
fn events_are_followed_by_number() {
    let report = full();
    let all = report.events(0, None, 1000);
    let first = report.events(0, None, 2);
    let rest = report.events(first.next, None, 1000);
    assert_eq!(first.events.len() + rest.events.len(), all.events.len());
    assert!(report.events(all.next, None, 10).events.is_empty());
    assert_eq!(report.events(u64::MAX, None, 1000), all, "the agent was restarted in between");
}

#[test]
fn metrics_follow_the_state() {
    let report = full();
    let text = report.metrics();
    for line in [
        "evenkeel_steps_total{kind=\"start\",reason=\"update\",outcome=\"failed\"} 1",
        "evenkeel_steps_in_flight 1",
        "evenkeel_service_desired{fleet=\"shop\",service=\"web\"} 3",
        "evenkeel_host_up{fleet=\"shop\",host=\"h2\"} 0",
        "evenkeel_waiting{kind=\"stalled\"} 1",
        "evenkeel_source_age_seconds 12.0",
        "evenkeel_source_problems 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
    }
    report.fleets([]);
    assert!(!report.metrics().contains("service=\"web\""));
}

proptest::proptest! {
    #[test]
    fn any_view_renders_at_any_width(
        names in proptest::collection::vec(".{0,100}", 8), n: [u32; 5], at: [u64; 4],
        width in 0usize..400, colour: bool, word in 0usize..5,
    ) {
        let mut status = full().status(None);
        let phase = [view::PhaseView::Ready, view::PhaseView::Reconciling, view::PhaseView::Stalled,
            view::PhaseView::Suspended, view::PhaseView::Unknown][word];
        status.agent.now = Stamp(Time(at[0]));
        for s in &mut status.services {
            s.name.clone_from(&names[0]);
            s.fleet.clone_from(&names[1]);
            s.image = Some(names[2].clone());
            (s.desired, s.replicas, s.updated, s.ready, s.available) = (n[0], n[1], n[2], n[3], n[4]);
            s.phase = phase;
            s.since = Stamp(Time(at[1]));
            for i in &mut s.instances {
                i.name.clone_from(&names[3]);
                i.created = Stamp(Time(at[2]));
            }
            for w in &mut s.waiting {
                w.message.clone_from(&names[4]);
                w.until = Some(Stamp(Time(at[3])));
            }
        }
        for e in &mut status.events {
            e.message.clone_from(&names[5]);
            e.kind.clone_from(&names[6]);
            e.took_millis = Some(at[3]);
        }
        let mut plans = full().plans().plans;
        for s in plans.iter_mut().flat_map(|p| &mut p.steps) {
            s.name.clone_from(&names[0]);
            s.kind.clone_from(&names[6]);
            s.service = Some(names[7].clone());
        }
        let out = [
            text::render_status(&status, width, colour),
            text::render_service(&status, width, colour),
            text::render_plans(&plans, colour),
            json(&status),
        ];
        if !colour {
            proptest::prop_assert!(out.iter().all(|t| !t.contains('\x1b')));
        }
    }
}
