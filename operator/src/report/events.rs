//! The last events, in a ring that cannot grow: something that repeats is counted, not stored again.

use std::collections::VecDeque;
use std::time::Duration;

use super::view::{EventView, Stamp};
use crate::model::{FleetName, HostName, ServiceName, Time};

/// Most events that are kept.
pub const MOST: usize = 500;
/// An event that comes again within this time is counted; a later one is a new one.
const SAME: Duration = Duration::from_secs(600);

/// What kind of thing happened: a closed set, safe for labels and filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    /// A step is under way. Replaced by its end.
    StepBegan,
    /// A step ended well.
    StepDone,
    /// A step failed.
    StepFailed,
    /// A host fell silent.
    HostLost,
    /// A host answers, for the first time or again.
    HostReturned,
    /// The source is at another revision.
    Revision,
    /// The source cannot be read.
    SourceFailed,
    /// The source can be read again.
    SourceRecovered,
    /// A document has a problem.
    ProblemAppeared,
    /// A document's problem is mended.
    ProblemGone,
    /// A service is in another phase.
    Phase,
    /// A service and all its instances are gone.
    Gone,
    /// A revision failed and the last good spec is put back.
    Rollback,
    /// Something waits for a person.
    Attention,
    /// The agent became active or stands by.
    Standby,
}

impl EventKind {
    /// The closed word.
    pub fn word(self) -> &'static str {
        match self {
            Self::StepBegan => "step-began",
            Self::StepDone => "step-done",
            Self::StepFailed => "step-failed",
            Self::HostLost => "host-lost",
            Self::HostReturned => "host-returned",
            Self::Revision => "revision",
            Self::SourceFailed => "source-failed",
            Self::SourceRecovered => "source-recovered",
            Self::ProblemAppeared => "problem-appeared",
            Self::ProblemGone => "problem-gone",
            Self::Phase => "phase",
            Self::Gone => "gone",
            Self::Rollback => "rollback",
            Self::Attention => "attention",
            Self::Standby => "standby",
        }
    }

    fn warning(self) -> bool {
        match self {
            Self::StepFailed
            | Self::HostLost
            | Self::SourceFailed
            | Self::ProblemAppeared
            | Self::Rollback
            | Self::Attention => true,
            Self::StepBegan
            | Self::StepDone
            | Self::HostReturned
            | Self::Revision
            | Self::SourceRecovered
            | Self::ProblemGone
            | Self::Phase
            | Self::Gone
            | Self::Standby => false,
        }
    }
}

/// Something that happened. The message holds no duration and no number that differs from one time
/// to the next, or it would never be seen as a repetition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its kind.
    pub kind: EventKind,
    /// Whether it is bad news.
    pub warning: bool,
    /// The fleet it is about.
    pub fleet: Option<FleetName>,
    /// The service it is about.
    pub service: Option<ServiceName>,
    /// The host it is about.
    pub host: Option<HostName>,
    /// For people.
    pub message: String,
}

impl Event {
    /// An event about nothing in particular.
    pub fn new(kind: EventKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            warning: kind.warning(),
            fleet: None,
            service: None,
            host: None,
            message: message.into(),
        }
    }

    /// About a fleet.
    #[must_use]
    pub fn in_fleet(mut self, fleet: &FleetName) -> Self {
        self.fleet = Some(fleet.clone());
        self
    }

    /// About a service.
    #[must_use]
    pub fn of_service(mut self, service: Option<&ServiceName>) -> Self {
        self.service = service.cloned();
        self
    }

    /// About a host.
    #[must_use]
    pub fn on_host(mut self, host: &HostName) -> Self {
        self.host = Some(host.clone());
        self
    }
}

#[derive(Debug, Clone)]
struct Kept {
    seq: u64,
    at: Time,
    first: Time,
    count: u32,
    took: Option<Duration>,
    event: Event,
}

/// The last [`MOST`] events.
#[derive(Debug, Clone, Default)]
pub struct Ring {
    kept: VecDeque<Kept>,
    seq: u64,
}

impl Ring {
    /// Takes an event in and gives its number. An equal one from a short while ago is counted on
    /// and moves to the end.
    pub fn push(&mut self, at: Time, event: Event, took: Option<Duration>) -> u64 {
        self.seq += 1;
        let before = self.kept.iter().position(|k| k.event == event && at.since(k.at) <= SAME);
        let (first, count) = match before.and_then(|i| self.kept.remove(i)) {
            Some(k) => (k.first, k.count.saturating_add(1)),
            None => (at, 1),
        };
        self.kept.push_back(Kept { seq: self.seq, at, first, count, took, event });
        while self.kept.len() > MOST {
            self.kept.pop_front();
        }
        self.seq
    }

    /// Takes an event out: the beginning of a step that has ended says nothing any more.
    pub fn remove(&mut self, seq: u64) {
        if let Ok(i) = self.kept.binary_search_by_key(&seq, |k| k.seq) {
            self.kept.remove(i);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The number of the newest event, 0 before the first.
    pub fn newest(&self) -> u64 {
        self.seq
    }

    /// Events with a number above `since`, oldest first, the newest `most` of them.
    pub fn after(&self, since: u64, service: Option<&ServiceName>, most: usize) -> Vec<EventView> {
        let mut out: Vec<EventView> = self
            .kept
            .iter()
            .rev()
            .take_while(|k| k.seq > since)
            .filter(|k| service.is_none() || k.event.service.as_ref() == service)
            .take(most)
            .map(view)
            .collect();
        out.reverse();
        out
    }
}

fn view(k: &Kept) -> EventView {
    let Kept { seq, at, first, count, took, event } = k;
    EventView {
        seq: *seq,
        kind: event.kind.word().into(),
        warning: event.warning,
        at: Stamp(*at),
        first: Stamp(*first),
        count: *count,
        fleet: event.fleet.as_ref().map(ToString::to_string),
        service: event.service.as_ref().map(ToString::to_string),
        host: event.host.as_ref().map(ToString::to_string),
        took_millis: took.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
        message: event.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_repetition_is_counted_and_moves_to_the_end() {
        let mut ring = Ring::default();
        let crash = || Event::new(EventKind::StepFailed, "start web_1 on h1: no such image");
        ring.push(Time(1000), crash(), None);
        ring.push(Time(2000), Event::new(EventKind::Phase, "web is reconciling"), None);
        ring.push(Time(3000), crash(), Some(Duration::from_millis(7)));
        let seen = ring.after(0, None, 10);
        assert_eq!(seen.len(), 2);
        assert_eq!(
            (seen[1].count, seen[1].first, seen[1].at.0),
            (2, Stamp(Time(1000)), Time(3000))
        );
        assert_eq!(seen[1].took_millis, Some(7));
        assert_eq!(ring.after(2, None, 10).len(), 1, "a repetition is news for a follower");
        ring.push(Time(3000).plus(SAME).plus(Duration::from_secs(1)), crash(), None);
        assert_eq!(ring.len(), 3, "much later it is a new event");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_ring_is_bounded_and_its_numbers_grow(
            pushes in prop::collection::vec((0u64..5_000_000, 0u32..2000, any::<bool>()), 0..1200)
        ) {
            let mut ring = Ring::default();
            let mut at = 0;
            for (pause, what, end) in pushes {
                at += pause;
                let seq = ring.push(Time(at), Event::new(EventKind::Phase, what.to_string()), None);
                if end {
                    ring.remove(seq);
                }
                prop_assert!(ring.len() <= MOST);
            }
            let all = ring.after(0, None, usize::MAX);
            prop_assert!(all.is_sorted_by(|a, b| a.seq < b.seq && a.at <= b.at));
            prop_assert_eq!(all.len(), ring.len());
        }
    }
}
