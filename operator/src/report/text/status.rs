//! What runs, what is waited for and what was done lately, as tables.

use std::fmt::Write;
use std::time::Duration;

use super::{age, clean, event_text, many, place, short, waiting_text};
use crate::report::table::{Cell, Column, Fit, Table, Tint};
use crate::report::view::{
    AmountView, FleetView, HostView, InstanceView, PhaseView, ServiceView, SourceView, Stamp,
    StatusView,
};

/// Events under the tables.
const EVENTS: usize = 10;
/// Problems under the source.
const PROBLEMS: usize = 10;

/// The overview: source, services, hosts, waits and the last events.
pub fn render_status(status: &StatusView, width: usize, colour: bool) -> String {
    let mut out = String::new();
    head(status, colour, &mut out);
    out.push('\n');
    if status.services.is_empty() {
        out.push_str(if status.agent.standby {
            "no services: this agent stands by\n"
        } else if status.fleets.iter().any(|f| f.last_pass.is_some()) {
            "no services\n"
        } else {
            "no services yet: the first pass has not ended\n"
        });
    } else {
        out.push_str(&services(status).render(width, colour));
        progress(&status.services, colour, &mut out);
    }
    let hosts = hosts(status);
    if !hosts.is_empty() {
        out.push('\n');
        out.push_str(&hosts.render(width, colour));
    }
    let waits: Vec<_> =
        status.fleets.iter().flat_map(|f| f.waiting.iter().map(move |w| (f, w))).collect();
    if !waits.is_empty() {
        let _ = writeln!(out, "\n{}", Tint::Bold.paint("waiting", colour));
        for (fleet, w) in waits {
            let about = match w.subject.as_str() {
                "fleet" => format!("fleet {}", fleet.name),
                other => format!("{other} of fleet {}", fleet.name),
            };
            let tint = if w.needs_a_person { Tint::Red } else { Tint::Yellow };
            let about = tint.paint(&clean(&about), colour);
            let _ = writeln!(out, "  {about}: {}", waiting_text(w, status.agent.now));
        }
    }
    events(status, colour, &mut out);
    out
}

/// One service in detail; the view is expected to hold only what concerns it.
pub fn render_service(status: &StatusView, width: usize, colour: bool) -> String {
    let now = status.agent.now;
    let mut out = String::new();
    for (i, s) in status.services.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        let (word, tint) = phase(s.phase);
        let title = format!("{} on fleet {}", clean(&s.name), clean(&s.fleet));
        let since = age(now.0.since(s.since.0));
        let _ = writeln!(
            out,
            "{}  {} for {since}",
            Tint::Bold.paint(&title, colour),
            tint.paint(word, colour)
        );
        let line = |out: &mut String, name: &str, text: &str| {
            let _ = writeln!(out, "  {} {text}", Tint::Dim.paint(&format!("{name:10}"), colour));
        };
        let image = s.image.as_deref().unwrap_or("(no document asks for it any more)");
        line(&mut out, "image", &clean(image));
        let counts = format!(
            "{} desired · {} there · {} up to date · {} ready · {} available",
            s.desired, s.replicas, s.updated, s.ready, s.available
        );
        line(&mut out, "instances", &counts);
        line(&mut out, "revision", &revisions(s));
        for c in s.conditions.iter().filter(|c| c.kind == "Stalled") {
            line(&mut out, "stalled", &Tint::Red.paint(&clean(&c.message), colour));
        }
        for w in &s.waiting {
            let tint = if w.needs_a_person { Tint::Red } else { Tint::Yellow };
            line(&mut out, "waiting", &tint.paint(&waiting_text(w, now), colour));
        }
        for step in &s.in_flight {
            let since = step.since.map(|t| age(now.0.since(t.0))).unwrap_or_default();
            line(&mut out, "under way", &format!("{} ({since})", clean(&step.text)));
        }
        progress(std::slice::from_ref(s), colour, &mut out);
        if !s.instances.is_empty() {
            out.push('\n');
            out.push_str(&instances(&s.instances, now).render(width, colour));
        }
    }
    events(status, colour, &mut out);
    out
}

fn revisions(s: &ServiceView) -> String {
    let known = |r: &Option<String>| r.as_deref().map(short);
    match (known(&s.attempted_revision), known(&s.applied_revision)) {
        (Some(a), Some(b)) if a == b => format!("{a}, applied"),
        (Some(a), Some(b)) => format!("{a} attempted, {b} applied last"),
        (Some(a), None) => format!("{a} attempted"),
        (None, Some(b)) => format!("none, {b} applied last"),
        (None, None) => "none".into(),
    }
}

fn head(status: &StatusView, colour: bool, out: &mut String) {
    let a = &status.agent;
    let standby = match &a.held_back {
        Some(why) => format!(" · does not act: {}", clean(why)),
        None if a.standby => " · standing by".to_owned(),
        None => String::new(),
    };
    let up = age(a.now.0.since(a.started.0));
    let _ = writeln!(
        out,
        "{} {} · owner {} · up {up}{standby}",
        Tint::Bold.paint("evenkeel", colour),
        clean(&a.version),
        clean(&a.owner)
    );
    match &status.source {
        None => out.push_str("source  not read yet\n"),
        Some(s) => source(s, a.now, colour, out),
    }
}

fn source(s: &SourceView, now: Stamp, colour: bool, out: &mut String) {
    let mut line = format!("source  {} {}", clean(&s.kind), clean(&s.describe));
    if let Some(r) = &s.revision {
        let _ = write!(line, " at {}", short(r));
    }
    if let Some(t) = &s.subject {
        let _ = write!(line, " \"{}\"", clean(t));
    }
    if let Some(a) = &s.author {
        let _ = write!(line, " by {}", clean(a));
    }
    if let Some(t) = s.fetched {
        let _ = write!(line, ", read {} ago", age(now.0.since(t.0)));
    }
    if s.from_store {
        line.push_str(", from the agent's store");
    }
    out.push_str(&line);
    out.push('\n');
    if let Some(e) = &s.error {
        let since = age(now.0.since(e.since.0));
        let next = e.next_try.map(|t| format!(", retry in {}", age(t.0.since(now.0))));
        let text = format!(
            "cannot be read for {since}: {}{}",
            clean(&e.message),
            next.unwrap_or_default()
        );
        let _ = writeln!(out, "        {}", Tint::Red.paint(&text, colour));
        if let Some(hint) = &e.hint {
            let _ = writeln!(out, "        hint: {}", clean(hint));
        }
    }
    if !s.problems.is_empty() {
        let text = format!(
            "{} in the documents; nothing is removed until they are mended",
            many(s.problems.len(), "problem")
        );
        let _ = writeln!(out, "        {}", Tint::Red.paint(&text, colour));
        for p in s.problems.iter().take(PROBLEMS) {
            let _ = writeln!(out, "          {}", clean(&place(p)));
            if let Some(hint) = &p.hint {
                let _ = writeln!(out, "            hint: {}", clean(hint));
            }
        }
        if s.problems.len() > PROBLEMS {
            let _ = writeln!(out, "          and {} more", s.problems.len() - PROBLEMS);
        }
    }
}

fn phase(p: PhaseView) -> (&'static str, Tint) {
    let tint = match p {
        PhaseView::Ready => Tint::Green,
        PhaseView::Reconciling => Tint::Yellow,
        PhaseView::Stalled => Tint::Red,
        PhaseView::Suspended | PhaseView::Unknown => Tint::Dim,
    };
    (p.word(), tint)
}

fn services(status: &StatusView) -> Table {
    let mut t = Table::new(
        &[
            Column::text("NAME").fit(Fit::End(12)),
            Column::text("FLEET").fit(Fit::End(8)).spare(5),
            Column::number("DESIRED").spare(1),
            Column::number("READY"),
            Column::number("AVAILABLE").spare(2),
            Column::number("UPDATED").spare(3),
            Column::text("IMAGE").fit(Fit::Start(14)).spare(4),
            Column::text("STATUS").fit(Fit::End(14)),
            Column::text("AGE"),
        ],
        0,
    );
    for s in &status.services {
        let (word, tint) = phase(s.phase);
        let few = |n: u32| {
            Cell::tinted(n.to_string(), if n < s.desired { Tint::Yellow } else { Tint::Plain })
        };
        let why = why(s).map(|w| format!(": {w}")).unwrap_or_default();
        t.row(vec![
            s.name.clone().into(),
            s.fleet.clone().into(),
            s.desired.into(),
            few(s.ready),
            few(s.available),
            few(s.updated),
            s.image.as_deref().unwrap_or("-").into(),
            Cell::tinted(format!("{word}{why}"), tint),
            age(status.agent.now.0.since(s.since.0)).into(),
        ]);
    }
    t
}

/// The one thing to say about a service that is not as desired.
fn why(s: &ServiceView) -> Option<String> {
    if s.phase == PhaseView::Ready || s.phase == PhaseView::Suspended {
        return None;
    }
    let worst = s.waiting.iter().find(|w| w.needs_a_person).or(s.waiting.first());
    if let Some(w) = worst {
        let more = s.waiting.len() - 1;
        let more = if more > 0 { format!(" (+{more})") } else { String::new() };
        // "stalled: stalled: no progress" says it twice.
        let text = w.message.strip_prefix("stalled: ").unwrap_or(&w.message);
        return Some(format!("{text}{more}"));
    }
    s.in_flight.first().map(|step| format!("{} {}", step.kind, step.name))
}

/// A bar while something converges.
fn progress(services: &[ServiceView], colour: bool, out: &mut String) {
    const CELLS: u64 = 24;
    let moving: Vec<_> = services.iter().filter(|s| s.phase == PhaseView::Reconciling).collect();
    let want: u64 = moving.iter().map(|s| u64::from(s.desired)).sum();
    let have: u64 =
        moving.iter().map(|s| u64::from(s.available.min(s.updated).min(s.desired))).sum();
    if want == 0 {
        return;
    }
    let full = usize::try_from(have * CELLS / want).unwrap_or(0);
    let bar = format!("{}{}", "█".repeat(full), "░".repeat(24 - full.min(24)));
    let _ = writeln!(
        out,
        "\nconverging {} {have} of {want} instances up to date and available",
        Tint::Yellow.paint(&bar, colour)
    );
}

fn hosts(status: &StatusView) -> Table {
    let mut t = Table::new(
        &[
            Column::text("HOST").fit(Fit::End(10)),
            Column::text("FLEET").fit(Fit::End(8)).spare(4),
            Column::text("STATE"),
            Column::number("INSTANCES"),
            Column::text("CPU").spare(3),
            Column::text("MEMORY").spare(2),
            Column::text("PROBLEM").fit(Fit::End(12)).spare(1),
        ],
        0,
    );
    let all = status.fleets.iter().flat_map(|f: &FleetView| f.hosts.iter().map(move |h| (f, h)));
    for (fleet, h) in all {
        let (state, tint) = host_state(h);
        let of = |f: fn(AmountView) -> u64, show: fn(u64) -> String| {
            if f(h.capacity) == 0 {
                String::from("-")
            } else {
                format!("{}/{}", show(f(h.reserved)), show(f(h.capacity)))
            }
        };
        t.row(vec![
            h.name.clone().into(),
            fleet.name.clone().into(),
            Cell::tinted(state, tint),
            h.instances.into(),
            of(|a| a.cpu_millis, cores).into(),
            of(|a| a.memory_bytes, bytes).into(),
            Cell::tinted(h.problem.clone().unwrap_or_default(), Tint::Red),
        ]);
    }
    t
}

fn host_state(h: &HostView) -> (String, Tint) {
    let mut text = h.state.clone();
    if let Some(s) = h.silent_seconds {
        let _ = write!(text, " {}", age(Duration::from_secs(s)));
    }
    if h.scheduling != "active" && !h.scheduling.is_empty() {
        let _ = write!(text, ", {}", h.scheduling);
    }
    let tint = match (h.state.as_str(), h.scheduling.as_str()) {
        ("up", "active") => Tint::Green,
        ("silent", _) => Tint::Red,
        _ => Tint::Yellow,
    };
    (text, tint)
}

fn instances(all: &[InstanceView], now: Stamp) -> Table {
    let mut t = Table::new(
        &[
            Column::text("INSTANCE").fit(Fit::End(12)),
            Column::text("HOST").fit(Fit::End(8)),
            Column::text("STATE"),
            Column::text("HEALTH"),
            Column::text("TRAFFIC").spare(2),
            Column::text("SPEC").spare(3),
            Column::text("PORTS").fit(Fit::End(8)).spare(4),
            Column::text("AGE").spare(1),
        ],
        2,
    );
    for i in all {
        let state = match (i.exit_code, i.out_of_memory) {
            (_, true) => "out of memory".into(),
            (Some(code), false) => format!("{} ({code})", i.state),
            (None, false) => i.state.clone(),
        };
        let running = i.state == "running";
        let state = if i.host_up { state } else { format!("{state}?") };
        let health = if running { i.health.as_str() } else { "-" };
        let tint = match health {
            "healthy" if i.host_up => Tint::Green,
            "unhealthy" => Tint::Red,
            _ => Tint::Yellow,
        };
        let traffic = match i.sessions {
            Some(n) => format!("{} ({n})", i.traffic),
            None if i.traffic == "none" => "-".into(),
            None => i.traffic.clone(),
        };
        let ports: Vec<String> = i.published.iter().map(ToString::to_string).collect();
        t.row(vec![
            i.name.clone().into(),
            i.host.clone().into(),
            Cell::tinted(state, if running { Tint::Plain } else { Tint::Red }),
            Cell::tinted(health, tint),
            traffic.into(),
            if i.updated { "current" } else { "old" }.into(),
            if ports.is_empty() { "-".into() } else { ports.join(",").into() },
            age(now.0.since(i.created.0)).into(),
        ]);
    }
    t
}

fn events(status: &StatusView, colour: bool, out: &mut String) {
    if status.events.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", Tint::Bold.paint("lately", colour));
    let skip = status.events.len().saturating_sub(EVENTS);
    for e in status.events.iter().skip(skip) {
        let ago = format!("{:>7} ago", age(status.agent.now.0.since(e.at.0)));
        let _ = writeln!(out, "{}  {}", Tint::Dim.paint(&ago, colour), event_text(e, colour));
    }
}

fn cores(millis: u64) -> String {
    if millis.is_multiple_of(1000) {
        (millis / 1000).to_string()
    } else {
        format!("{}.{}", millis / 1000, millis % 1000 / 100)
    }
}

fn bytes(n: u64) -> String {
    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;
    if n >= 10 * GIB || (n >= GIB && n.is_multiple_of(GIB)) {
        format!("{}Gi", n / GIB)
    } else {
        format!("{}Mi", n / MIB)
    }
}
