//! What the fleets of one service say of it, as one: its object has one status. Pure.

use std::borrow::Cow;

use crate::report::view::{ConditionView, PhaseView, ServiceView, WaitingView};

/// One view of all. What only a person can help goes before what helps itself, and it is ready where it is ready everywhere.
/// `None` where no fleet knows of it.
pub fn of<'a>(views: &[&'a ServiceView]) -> Option<Cow<'a, ServiceView>> {
    let (first, others) = views.split_first()?;
    if others.is_empty() {
        return Some(Cow::Borrowed(first));
    }
    let count =
        |n: fn(&ServiceView) -> u32| views.iter().map(|v| n(v)).fold(0, u32::saturating_add);
    let asked = views.iter().find(|v| v.desired > 0).unwrap_or(first);
    let worst = views.iter().max_by_key(|v| rank(v.phase)).map_or(first.phase, |v| v.phase);
    Some(Cow::Owned(ServiceView {
        name: first.name.clone(),
        fleet: views.iter().map(|v| v.fleet.as_str()).collect::<Vec<_>>().join(", "),
        image: asked.image.clone(),
        desired: count(|v| v.desired),
        replicas: count(|v| v.replicas),
        updated: count(|v| v.updated),
        ready: count(|v| v.ready),
        available: count(|v| v.available),
        hash: asked.hash.clone(),
        phase: worst,
        since: views.iter().map(|v| v.since).max().unwrap_or_default(),
        // Each fleet has its own: see the writer.
        attempted_revision: None,
        applied_revision: None,
        conditions: conditions(views, worst),
        waiting: views.iter().flat_map(|v| v.waiting.iter().map(|w| wait(v, w))).collect(),
        in_flight: views.iter().flat_map(|v| v.in_flight.iter().cloned()).collect(),
        routes: views.iter().find_map(|v| v.routes),
        instances: views.iter().flat_map(|v| v.instances.iter().cloned()).collect(),
    }))
}

/// How much it says of the whole when one fleet says it.
fn rank(phase: PhaseView) -> u8 {
    match phase {
        PhaseView::Ready => 0,
        PhaseView::Suspended => 1,
        PhaseView::Unknown => 2,
        PhaseView::Reconciling => 3,
        PhaseView::Stalled => 4,
    }
}

/// `Ready` with what each fleet says, and what the worst of them say beside it.
fn conditions(views: &[&ServiceView], worst: PhaseView) -> Vec<ConditionView> {
    let said = |view: &ServiceView, kind: &str| {
        view.conditions.iter().find(|c| c.kind == kind).cloned().unwrap_or_else(|| ConditionView {
            kind: kind.into(),
            status: "False".into(),
            reason: "Progressing".into(),
            ..ConditionView::default()
        })
    };
    let of_fleet = |view: &ServiceView, text: &str| format!("{}: {text}", view.fleet);
    let mut ready = match views.iter().find(|v| v.phase == worst) {
        Some(view) => said(view, "Ready"),
        None => return Vec::new(),
    };
    let everywhere = views.iter().all(|v| said(v, "Ready").status == "True");
    ready.status = if everywhere { "True" } else { "False" }.into();
    let each = views.iter().map(|v| of_fleet(v, &said(v, "Ready").message));
    ready.message = each.collect::<Vec<_>>().join("; ");
    let mut all = vec![ready];
    for kind in ["Reconciling", "Stalled"] {
        let mut those = views.iter().filter(|v| v.phase == worst).filter_map(|view| {
            let condition = view.conditions.iter().find(|c| c.kind == kind)?;
            let message = of_fleet(view, &condition.message);
            Some(ConditionView { message, ..condition.clone() })
        });
        if let Some(mut first) = those.next() {
            for other in those {
                first.message = format!("{}; {}", first.message, other.message);
            }
            all.push(first);
        }
    }
    all
}

fn wait(view: &ServiceView, wait: &WaitingView) -> WaitingView {
    WaitingView { message: format!("fleet {}: {}", view.fleet, wait.message), ..wait.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::view::InstanceView;

    fn condition(kind: &str, status: &str, reason: &str, message: &str) -> ConditionView {
        ConditionView {
            kind: kind.into(),
            status: status.into(),
            reason: reason.into(),
            message: message.into(),
            ..ConditionView::default()
        }
    }

    /// A fleet's view: how many are asked for and available, and what else it says.
    fn on(fleet: &str, phase: PhaseView, available: u32, desired: u32) -> ServiceView {
        let stand = format!("{available} of {desired} available");
        let conditions = match phase {
            PhaseView::Ready => vec![condition("Ready", "True", "Available", &stand)],
            PhaseView::Suspended => {
                let whole = if available >= desired { "True" } else { "False" };
                vec![condition("Ready", whole, "Suspended", &stand)]
            }
            PhaseView::Reconciling | PhaseView::Unknown => vec![
                condition("Ready", "False", "Progressing", &stand),
                condition("Reconciling", "True", "NotAvailable", "not yet"),
            ],
            PhaseView::Stalled => vec![
                condition("Ready", "False", "Stalled", &stand),
                condition("Stalled", "True", "RolledBack", "it was rolled back"),
            ],
        };
        ServiceView {
            name: "web".into(),
            fleet: fleet.into(),
            image: Some(format!("web:{fleet}")),
            desired,
            replicas: available + 1,
            ready: available,
            updated: available,
            available,
            phase,
            conditions,
            waiting: vec![WaitingView { message: "patience".into(), ..WaitingView::default() }],
            instances: vec![InstanceView::default(); usize::try_from(available).unwrap()],
            ..ServiceView::default()
        }
    }

    fn told(views: &[ServiceView]) -> Vec<String> {
        let views: Vec<&ServiceView> = views.iter().collect();
        let whole = of(&views).unwrap();
        let line =
            |c: &ConditionView| format!("{} {} {}: {}", c.kind, c.status, c.reason, c.message);
        whole.conditions.iter().map(line).collect()
    }

    #[test]
    fn one_fleet_is_told_as_it_is_and_none_is_nothing() {
        let only = on("a", PhaseView::Stalled, 1, 3);
        assert_eq!(*of(&[&only]).unwrap(), only);
        assert!(matches!(of(&[&only]), Some(Cow::Borrowed(_))));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn what_is_counted_is_counted_over_all() {
        let (a, b) = (on("a", PhaseView::Ready, 3, 3), on("b", PhaseView::Reconciling, 1, 4));
        let whole = of(&[&a, &b]).unwrap();
        assert_eq!((whole.desired, whole.replicas, whole.ready), (7, 6, 4));
        assert_eq!((whole.updated, whole.available), (4, 4));
        assert_eq!((whole.instances.len(), whole.fleet.as_str()), (4, "a, b"));
        let waits: Vec<&str> = whole.waiting.iter().map(|w| w.message.as_str()).collect();
        assert_eq!(waits, ["fleet a: patience", "fleet b: patience"]);
    }

    #[test]
    fn the_image_is_that_of_who_wants_some() {
        let (gone, here) = (on("a", PhaseView::Reconciling, 1, 0), on("b", PhaseView::Ready, 1, 1));
        assert_eq!(of(&[&gone, &here]).unwrap().image.as_deref(), Some("web:b"));
    }

    #[test]
    fn it_is_ready_where_it_is_ready_everywhere() {
        let all = [on("a", PhaseView::Ready, 3, 3), on("b", PhaseView::Ready, 1, 1)];
        assert_eq!(told(&all), ["Ready True Available: a: 3 of 3 available; b: 1 of 1 available"]);
        let some = [on("a", PhaseView::Ready, 3, 3), on("b", PhaseView::Reconciling, 0, 1)];
        assert_eq!(
            told(&some),
            [
                "Ready False Progressing: a: 3 of 3 available; b: 0 of 1 available",
                "Reconciling True NotAvailable: b: not yet",
            ]
        );
        let held = [on("a", PhaseView::Suspended, 1, 3), on("b", PhaseView::Ready, 1, 1)];
        assert_eq!(
            told(&held),
            ["Ready False Suspended: a: 1 of 3 available; b: 1 of 1 available"]
        );
    }

    #[test]
    fn what_only_a_person_can_help_goes_first_and_all_such_are_told() {
        let mixed = [
            on("a", PhaseView::Reconciling, 0, 3),
            on("b", PhaseView::Stalled, 0, 1),
            on("c", PhaseView::Stalled, 0, 1),
        ];
        let told = told(&mixed);
        assert!(told[0].starts_with("Ready False Stalled: a: 0 of 3 available; b: 0 of 1"));
        let both = "Stalled True RolledBack: b: it was rolled back; c: it was rolled back";
        assert_eq!(told[1..], [both]);
    }
}
