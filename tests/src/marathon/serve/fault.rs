//! Faults that requests meet when a test says so.

use std::time::Duration;

use serde_json::Value;

use super::record::Recorded;

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// It is taken, and never answered; nothing is changed.
    Hang,
    /// It is answered so late.
    Late(Duration),
    /// It is answered with this code and JSON; nothing is changed.
    Json(u16, Value),
    /// It is answered with this code and a page for people; nothing is changed.
    Html(u16),
    /// Its connection ends without an answer; nothing is changed.
    Drop,
    /// It is done, and answered with this code and a page for people.
    After(u16),
    /// It is done, and its connection ends without an answer.
    DropAfter,
    /// It is done, and half of its answer arrives.
    Truncate,
}

type Rule = Box<dyn Fn(&Recorded) -> bool + Send>;

/// The rules, the newest last.
#[derive(Default)]
pub(super) struct Faults(Vec<(usize, Fault, Rule)>);

impl Faults {
    pub(super) fn add(&mut self, times: usize, fault: Fault, matches: Rule) {
        self.0.push((times, fault, matches));
    }

    /// What this request meets.
    pub(super) fn meet(&mut self, request: &Recorded) -> Option<Fault> {
        let (left, fault, _) =
            self.0.iter_mut().rev().find(|(left, _, matches)| *left > 0 && matches(request))?;
        *left -= 1;
        Some(fault.clone())
    }
}
