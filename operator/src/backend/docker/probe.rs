//! Health checks that the agent makes from outside: what they ask, what they conclude, and when they ask again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::model::{HealthState, Probe, ProbeKind, Time};

/// One run of one instance, and how it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) id: Arc<str>,
    /// Which run of the container, see `Ours::started`.
    pub(super) started: i64,
    pub(super) probe: Probe,
    /// `address:port`, or why it cannot be reached.
    pub(super) at: Result<String, String>,
}

/// The first checks after a start come this quickly, then ever more slowly until the interval is reached.
const EAGER: Duration = Duration::from_millis(100);
/// No more of an answer is read than this.
const MOST: u64 = 16 << 10;

/// What the checks of one run have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    health: HealthState,
    failures: u32,
    counted: Option<Time>,
}

impl Default for Verdict {
    fn default() -> Self {
        Self { health: HealthState::Starting, failures: 0, counted: None }
    }
}

impl Verdict {
    /// On one that ran before anybody could ask it: it may well be serving, so it is not taken for
    /// one that starts, which nobody misses.
    pub(super) fn unasked() -> Self {
        Self { health: HealthState::Unknown, ..Self::default() }
    }

    pub(super) fn health(&self) -> HealthState {
        self.health
    }

    /// Whether it was neither well nor sick yet.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.health, HealthState::Starting | HealthState::Unknown)
    }

    /// Takes one answer into account.
    ///
    /// While it starts it is asked more often than the interval says, so failures count only an interval
    /// apart: asking eagerly must not make it sick sooner.
    pub(super) fn answer(&mut self, ok: bool, probe: &Probe, running_since: Time, now: Time) {
        if ok {
            (self.failures, self.counted) = (0, None);
            if !matches!(self.health, HealthState::Healthy { .. }) {
                self.health = HealthState::Healthy { since: now };
            }
            return;
        }
        let starting = self.is_open();
        if starting && now.since(running_since) < probe.start_period {
            return;
        }
        // Nine tenths: timers are not exact.
        let apart = probe.interval.mul_f64(0.9);
        if starting && self.counted.is_some_and(|at| now.since(at) < apart) {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        self.counted = Some(now);
        let sick = self.failures >= probe.failure_threshold.max(1);
        if sick && !matches!(self.health, HealthState::Unhealthy { .. }) {
            self.health = HealthState::Unhealthy { since: now };
        }
    }
}

/// How long until the `n`th check of a run, counted from 0.
pub(super) fn pause(target: &Target, starting: bool, n: u32) -> Duration {
    let interval = target.probe.interval.max(EAGER);
    if starting {
        if n == 0 {
            return Duration::ZERO;
        }
        return EAGER
            .mul_f64(1.5_f64.powi(i32::try_from(n.min(40)).unwrap_or(40) - 1))
            .min(interval);
    }
    if n > 0 {
        return interval;
    }
    // Taken up again after a reconnect: spread over the interval, the same way every time.
    let sum = target.id.bytes().fold(7_u64, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
    interval.mul_f64(f64::from(u16::try_from(sum % 1000).unwrap_or(0)) / 1000.0)
}

/// Asks once.
pub(super) async fn ask(target: &Target) -> bool {
    let Ok(at) = &target.at else { return false };
    let asked = tokio::time::timeout(target.probe.timeout, once(at, &target.probe.kind)).await;
    matches!(asked, Ok(Ok(true)))
}

async fn once(at: &str, kind: &ProbeKind) -> io::Result<bool> {
    let mut stream = TcpStream::connect(at).await?;
    let ProbeKind::Http { path } = kind else { return Ok(true) };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {at}\r\nUser-Agent: evenkeel-probe\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::with_capacity(256);
    let mut answer = stream.take(MOST);
    while status(&head).is_none() {
        if head.len() > 64 || answer.read_buf(&mut head).await? == 0 {
            return Ok(false);
        }
    }
    let well = matches!(status(&head), Some(200..=399));
    // Read on to the end, so that the server sees a client that hangs up politely; the verdict stands.
    let mut rest = [0; 1024];
    while matches!(answer.read(&mut rest).await, Ok(n) if n > 0) {}
    Ok(well)
}

/// The status of `HTTP/1.x NNN`, once it has arrived.
fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.")?;
    let [_, b' ', digits @ ..] = rest else { return None };
    let digits = digits.get(..3)?;
    if digits.iter().all(u8::is_ascii_digit) {
        std::str::from_utf8(digits).ok()?.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn probe() -> Probe {
        Probe {
            kind: ProbeKind::Http { path: "/".into() },
            port: 80,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            failure_threshold: 3,
            start_period: Duration::from_secs(5),
        }
    }

    fn after(answers: &[(u64, bool)]) -> HealthState {
        let mut v = Verdict::default();
        for (ms, ok) in answers {
            v.answer(*ok, &probe(), Time(0), Time(*ms));
        }
        v.health()
    }

    #[test]
    fn failures_in_the_start_period_do_not_count_and_a_success_ends_it() {
        let healthy = HealthState::Healthy { since: Time(200) };
        assert_eq!(after(&[(0, false), (1000, false), (4900, false)]), HealthState::Starting);
        assert_eq!(after(&[(100, false), (200, true)]), healthy);
        assert_eq!(after(&[(200, true), (300, false), (400, false), (450, true)]), healthy);
        assert_eq!(
            after(&[(200, true), (2200, false), (4200, false), (4900, false)]),
            HealthState::Unhealthy { since: Time(4900) }
        );
    }

    #[test]
    fn one_that_nobody_asked_is_unknown_until_it_proves_well_or_sick() {
        let mut v = Verdict::unasked();
        for at in [0, 1000, 4900, 5000, 7000] {
            v.answer(false, &probe(), Time(0), Time(at));
            assert_eq!(v.health(), HealthState::Unknown, "one answer that failed is no proof");
        }
        v.answer(false, &probe(), Time(0), Time(9000));
        assert_eq!(v.health(), HealthState::Unhealthy { since: Time(9000) });
        let mut v = Verdict::unasked();
        v.answer(true, &probe(), Time(0), Time(10));
        assert_eq!(v.health(), HealthState::Healthy { since: Time(10) });
    }

    #[test]
    fn asking_eagerly_does_not_make_it_sick_sooner() {
        let eager: Vec<(u64, bool)> = (0..30).map(|n| (5000 + n * 100, false)).collect();
        assert_eq!(after(&eager), HealthState::Starting);
        assert_eq!(
            after(&[(5000, false), (7000, false), (9000, false)]),
            HealthState::Unhealthy { since: Time(9000) }
        );
    }

    #[test]
    fn sick_ones_recover_and_keep_the_time_of_the_change() {
        let sick = [(200, true), (2200, false), (4200, false), (6200, false), (8200, false)];
        assert_eq!(after(&sick), HealthState::Unhealthy { since: Time(6200) });
        let mut well = sick.to_vec();
        well.extend([(10_200, true), (12_200, true)]);
        assert_eq!(after(&well), HealthState::Healthy { since: Time(10_200) });
    }

    #[test]
    fn the_pauses_begin_short_and_grow_to_the_interval() {
        let t = Target { id: "abc".into(), started: 1, probe: probe(), at: Ok("x:1".into()) };
        let pauses: Vec<u128> = (0..12).map(|n| pause(&t, true, n).as_millis()).collect();
        assert_eq!(pauses[..4], [0, 100, 150, 225]);
        assert_eq!(pauses[11], 2000);
        assert!(pause(&t, false, 0) < Duration::from_secs(2));
        assert_eq!(pause(&t, false, 1), Duration::from_secs(2));
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_harm(head in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = status(&head);
        }
    }

    #[test]
    fn only_a_status_line_is_a_status() {
        assert_eq!(status(b"HTTP/1.1 200 OK"), Some(200));
        assert_eq!(status(b"HTTP/1.0 503"), Some(503));
        for bad in [&b"HTTP/1.1 20"[..], b"HTTP/2 200", b"SSH-2.0-x", b"", b"HTTP/1.1 +20"] {
            assert_eq!(status(bad), None);
        }
    }
}
