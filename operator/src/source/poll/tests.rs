//! The loop against a scripted source, under paused time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::*;

fn tree(revision: &str) -> Tree {
    let files = BTreeMap::from([("a.yaml".to_owned(), revision.as_bytes().into())]);
    Tree { revision: revision.into(), describe: None, files, skipped: Vec::new(), objects: None }
}

/// When each fetch began, since the start, and what it was told.
type Asked = Vec<(Duration, Option<String>)>;

/// What the source answers next; at the end of the script, "no change".
enum Say {
    New(&'static str),
    Fail,
    /// Takes this long, then answers no change.
    Slow(Duration),
}

#[derive(Clone, Default)]
struct Script {
    say: Arc<Mutex<VecDeque<Say>>>,
    asked: Arc<Mutex<Asked>>,
}

struct Scripted(Script, Instant);

#[async_trait]
impl Fetch for Scripted {
    async fn fetch(&mut self, last: Option<&str>) -> Result<Option<Tree>, FetchError> {
        let asked = (self.1.elapsed(), last.map(str::to_owned));
        self.0.asked.lock().unwrap().push(asked);
        let say = self.0.say.lock().unwrap().pop_front();
        match say {
            None => Ok(None),
            Some(Say::New(r)) => Ok(Some(tree(r))),
            Some(Say::Fail) => Err(FetchError::Empty { remote: "r".into() }),
            Some(Say::Slow(d)) => {
                tokio::time::sleep(d).await;
                Ok(None)
            }
        }
    }

    fn describe(&self) -> String {
        "script".into()
    }
}

struct Bench {
    script: Script,
    bell: Doorbell,
    state: watch::Receiver<SourceState>,
    _tasks: JoinSet<()>,
}

const PACE: Pace = Pace {
    interval: Duration::from_secs(30),
    retry_min: Duration::from_secs(2),
    retry_max: Duration::from_secs(60),
    quiet: Duration::from_millis(100),
};

fn bench_with(say: Vec<Say>, store: Option<Arc<Store>>) -> Bench {
    let start = Instant::now();
    let script = Script { say: Arc::new(Mutex::new(say.into())), ..Script::default() };
    let bell = Doorbell::new();
    // The wall clock moves with the paused one.
    let clock: Clock = Arc::new(move || {
        Timestamp::UNIX_EPOCH + SignedDuration::try_from(start.elapsed()).unwrap()
    });
    let fetch = Scripted(script.clone(), start);
    let poller = Poller::new(fetch, PACE, bell.clone(), clock, Jitter::new(7), store);
    let state = poller.subscribe();
    let mut tasks = JoinSet::new();
    tasks.spawn(poller.run());
    Bench { script, bell, state, _tasks: tasks }
}

fn bench(say: Vec<Say>) -> Bench {
    bench_with(say, None)
}

impl Bench {
    fn times(&self) -> Vec<f64> {
        self.script.asked.lock().unwrap().iter().map(|(t, _)| t.as_secs_f64()).collect()
    }

    fn state(&self) -> SourceState {
        self.state.borrow().clone()
    }

    fn revision(&self) -> Option<String> {
        self.state().tree.map(|t| t.revision.clone())
    }
}

async fn pass(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn asks_at_once_and_then_at_the_interval_with_jitter() {
    let b = bench(vec![Say::New("1")]);
    pass(0.01).await;
    assert_eq!(b.revision().as_deref(), Some("1"));
    pass(3000.0).await;
    let times = b.times();
    assert!((95..=105).contains(&times.len()), "{}", times.len());
    let gaps: Vec<_> = times.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(gaps.iter().all(|g| (26.9..33.2).contains(g)), "{gaps:?}");
    let (min, max) = gaps.iter().fold((99.0f64, 0.0f64), |(a, b), g| (a.min(*g), b.max(*g)));
    assert!(max - min > 3.0, "no spread: {min} to {max}");
    let told = b.script.asked.lock().unwrap()[..2].iter().map(|a| a.1.clone()).collect::<Vec<_>>();
    assert_eq!(told, [None, Some("1".into())]);
}

#[tokio::test(start_paused = true)]
async fn a_ring_asks_now_and_a_burst_asks_once() {
    let b = bench(vec![Say::New("1"), Say::New("2")]);
    pass(5.0).await;
    for _ in 0..1000 {
        b.bell.ring();
    }
    pass(0.05).await;
    assert_eq!(b.times().len(), 2);
    assert_eq!(b.revision().as_deref(), Some("2"));
    pass(5.0).await;
    assert_eq!(b.times().len(), 2, "the burst was one ring");
}

#[tokio::test(start_paused = true)]
async fn a_ring_during_a_fetch_causes_another_fetch() {
    let b = bench(vec![Say::Slow(Duration::from_secs(5)), Say::New("2")]);
    pass(1.0).await;
    b.bell.ring();
    b.bell.ring();
    pass(3.9).await;
    assert_eq!(b.times().len(), 1, "the fetch is still at it");
    pass(0.3).await;
    assert_eq!((b.times().len(), b.revision().as_deref()), (2, Some("2")));
    pass(5.0).await;
    assert_eq!(b.times().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn ringing_all_the_time_does_not_hammer_the_source() {
    let b = bench(Vec::new());
    for _ in 0..1000 {
        b.bell.ring();
        pass(0.001).await;
    }
    assert!(b.times().len() <= 11, "{}", b.times().len());
}

#[tokio::test(start_paused = true)]
async fn an_error_keeps_the_tree_and_backs_off_and_recovery_clears_it() {
    let mut say = vec![Say::New("1")];
    say.extend((0..8).map(|_| Say::Fail));
    let mut b = bench(say);
    let state = b.state.wait_for(|s| s.error.is_some()).await.unwrap().clone();
    assert_eq!(state.tree.unwrap().revision, "1");
    let first = state.error.unwrap();
    assert_eq!((first.message.as_str(), first.failures), ("r has no commits", 1));
    assert_eq!(first.hint.as_deref(), Some("push a first commit"));
    let wait = first.next_try.duration_since(first.since).as_secs_f64();
    assert!((1.8..2.2).contains(&wait), "{wait}");

    pass(200.0).await;
    let error = b.state().error.unwrap();
    assert_eq!(error.since, first.since, "the row of errors began once");
    let times = b.times();
    let gaps: Vec<_> = times.windows(2).skip(1).map(|w| w[1] - w[0]).collect();
    for (gap, want) in gaps.iter().zip([2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]) {
        assert!((want * 0.89..want * 1.11).contains(gap), "{gaps:?}");
    }
    assert_eq!(b.state().last_success.unwrap().as_second(), 0);
    pass(120.0).await;
    let state = b.state();
    assert_eq!((state.error, b.revision().as_deref()), (None, Some("1")));
    assert!(state.last_success.unwrap().as_second() > 200);
}

#[tokio::test(start_paused = true)]
async fn a_ring_does_not_wait_for_the_backoff() {
    let mut say: Vec<_> = (0..6).map(|_| Say::Fail).collect();
    say.push(Say::New("fixed"));
    let b = bench(say);
    pass(2.0 + 4.0 + 8.0 + 16.0 + 32.0 + 9.0).await;
    assert_eq!(b.state().error.unwrap().failures, 6);
    b.bell.ring();
    pass(0.01).await;
    assert_eq!((b.revision().as_deref(), b.state().error), (Some("fixed"), None));
}

#[tokio::test]
async fn after_a_restart_with_the_source_gone_the_last_good_tree_is_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(dir.path()).unwrap());
    let clock: Clock = Arc::new(|| Timestamp::UNIX_EPOCH);
    let poller = |say: Vec<Say>| {
        let script = Script { say: Arc::new(Mutex::new(say.into())), ..Script::default() };
        let fetch = Scripted(script.clone(), Instant::now());
        let (bell, jitter) = (Doorbell::new(), Jitter::new(1));
        let p =
            Poller::new(fetch, PACE, bell, Arc::clone(&clock), jitter, Some(Arc::clone(&store)));
        (p, script)
    };
    let (mut p, _) = poller(vec![Say::New("1")]);
    assert!(p.subscribe().borrow().tree.is_none());
    p.once().await;

    let (mut p, script) = poller(vec![Say::Fail, Say::New("1")]);
    let state = p.subscribe();
    assert_eq!(state.borrow().tree.as_deref(), Some(&tree("1")));
    assert!(state.borrow().from_store);
    p.once().await;
    assert!(state.borrow().from_store && state.borrow().error.is_some());
    assert_eq!(state.borrow().tree.as_deref(), Some(&tree("1")));
    p.once().await;
    assert!(!state.borrow().from_store && state.borrow().error.is_none());
    // What an earlier process kept is read again before it counts as known.
    let asked = script.asked.lock().unwrap().iter().map(|a| a.1.clone()).collect::<Vec<_>>();
    assert_eq!(asked, [None, None]);
}

#[tokio::test]
async fn a_tree_that_cannot_be_kept_is_in_force_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(dir.path().join("state")).unwrap());
    std::fs::remove_dir(store.dir()).unwrap();
    let script = Script { say: Arc::new(Mutex::new([Say::New("1")].into())), ..Script::default() };
    let clock: Clock = Arc::new(|| Timestamp::UNIX_EPOCH);
    let fetch = Scripted(script, Instant::now());
    let mut p = Poller::new(fetch, PACE, Doorbell::new(), clock, Jitter::new(1), Some(store));
    p.once().await;
    let state = p.subscribe();
    assert_eq!(state.borrow().tree.as_deref(), Some(&tree("1")));
    assert!(state.borrow().not_kept.is_some());
}

#[test]
fn the_retry_never_overflows() {
    for n in [0, 1, 5, 31, 32, 33, u32::MAX] {
        assert!(PACE.retry(n) <= PACE.retry_max);
    }
    let mut jitter = Jitter::new(0);
    for _ in 0..10_000 {
        let d = jitter.spread(Duration::from_secs(100)).as_secs_f64();
        assert!((90.0..=110.0).contains(&d), "{d}");
    }
}
