//! A plan as text: what would be done, where and why, service by service.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::{clean, many, short, waiting_text};
use crate::report::table::Tint;
use crate::report::view::{PlanView, StepView, WaitingView};

/// What would be done to each fleet, and a line that sums it up.
pub fn render_plans(plans: &[PlanView], colour: bool) -> String {
    let mut out = String::new();
    for plan in plans {
        one(plan, colour, &mut out);
    }
    out.push_str(&summary(plans, colour));
    out.push('\n');
    out
}

fn one(plan: &PlanView, colour: bool, out: &mut String) {
    let title = format!("fleet {} at revision {}", clean(&plan.fleet), short(&plan.revision));
    let _ = writeln!(out, "{}", Tint::Bold.paint(&title, colour));
    let mut steps: BTreeMap<Option<&str>, Vec<&StepView>> = BTreeMap::new();
    for s in &plan.steps {
        steps.entry(s.service.as_deref()).or_default().push(s);
    }
    let mut waits: BTreeMap<Option<&str>, Vec<&WaitingView>> = BTreeMap::new();
    for w in &plan.waiting {
        waits.entry(w.subject.strip_prefix("service ")).or_default().push(w);
    }
    // What belongs to no service comes last, under the fleet itself.
    let mut groups: Vec<Option<&str>> = steps.keys().chain(waits.keys()).copied().collect();
    groups.sort_by_key(|g| (g.is_none(), *g));
    groups.dedup();
    let column = |f: fn(&StepView) -> &str| {
        plan.steps.iter().map(|s| clean(f(s)).chars().count()).max().unwrap_or(0)
    };
    let (names, hosts) = (column(|s| &s.name), column(|s| &s.host));
    let kinds = column(|s| &s.kind).max("waiting".len());

    for group in groups {
        let _ = writeln!(out, "\n  {}", heading(plan, group, colour));
        for s in steps.get(&group).into_iter().flatten() {
            let (sign, tint) = sign(&s.kind);
            let kind = format!("{sign} {:kinds$}", clean(&s.kind));
            let what = format!("{:names$}  on {:hosts$}", clean(&s.name), clean(&s.host));
            let because = Tint::Dim.paint(&clean(&s.because), colour);
            let _ = writeln!(out, "    {} {what}  {because}", tint.paint(&kind, colour));
        }
        for w in waits.get(&group).into_iter().flatten() {
            let tint = if w.needs_a_person { Tint::Red } else { Tint::Yellow };
            let about = match group {
                None if w.subject != "fleet" => format!("{}: ", clean(&w.subject)),
                _ => String::new(),
            };
            let text = waiting_text(w, plan.at);
            let kind = tint.paint(&format!("… {:kinds$}", "waiting"), colour);
            let _ = writeln!(out, "    {kind} {about}{text}");
        }
    }
    if !plan.steps.is_empty() || !plan.waiting.is_empty() {
        out.push('\n');
    }
}

fn heading(plan: &PlanView, group: Option<&str>, colour: bool) -> String {
    let Some(name) = group else {
        return Tint::Bold.paint("the fleet itself", colour);
    };
    let bold = Tint::Bold.paint(&clean(name), colour);
    match plan.services.get(name) {
        Some(c) => format!(
            "{bold}  {} desired · {} there · {} up to date · {} available",
            c.desired, c.replicas, c.updated, c.available
        ),
        None => bold,
    }
}

fn sign(kind: &str) -> (char, Tint) {
    match kind {
        "start" => ('+', Tint::Green),
        "stop" | "remove" | "remove-network" => ('-', Tint::Red),
        _ => ('~', Tint::Yellow),
    }
}

fn summary(plans: &[PlanView], colour: bool) -> String {
    let mut kinds: Vec<(&str, usize)> = Vec::new();
    for s in plans.iter().flat_map(|p| &p.steps) {
        match kinds.iter_mut().find(|(k, _)| *k == s.kind) {
            Some((_, n)) => *n += 1,
            None => kinds.push((&s.kind, 1)),
        }
    }
    kinds.sort_unstable();
    let waiting: BTreeSet<_> =
        plans.iter().flat_map(|p| p.waiting.iter().map(|w| (&p.fleet, &w.subject))).collect();
    let waits = match waiting.len() {
        0 => String::new(),
        1 => "; 1 thing waits".into(),
        n => format!("; {n} things wait"),
    };
    if kinds.is_empty() {
        let services: usize = plans.iter().map(|p| p.services.len()).sum();
        let what = if waits.is_empty() {
            format!("nothing to do: {} as desired", many(services, "service"))
        } else {
            "nothing to do now".into()
        };
        return format!("{}{waits}", Tint::Green.paint(&what, colour));
    }
    let counts: Vec<String> = kinds.iter().map(|(k, n)| format!("{n} to {}", clean(k))).collect();
    format!(
        "{} {}{waits}. nothing was changed",
        Tint::Bold.paint("plan:", colour),
        counts.join(", ")
    )
}
