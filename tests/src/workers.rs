//! What balancers' worker processes do meanwhile: every reload leaves one behind until its last connection ends.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::traffic::children;

/// How often they are looked at: no worker lives for less.
const OFTEN: Duration = Duration::from_millis(5);

/// Watches the workers of some balancers.
pub struct Workers {
    each: Vec<Arc<Mutex<Seen>>>,
    watch: JoinSet<()>,
}

/// What was seen of one balancer's workers.
#[derive(Default)]
struct Seen {
    first: BTreeSet<u32>,
    all: BTreeSet<u32>,
    most: usize,
}

impl Seen {
    fn look(&mut self, now: &[u32]) {
        self.most = self.most.max(now.len());
        self.all.extend(now);
    }

    /// How many workers a generation has.
    fn generation(&self) -> usize {
        self.first.len().max(1)
    }

    fn reloads(&self) -> usize {
        self.all.difference(&self.first).count() / self.generation()
    }

    /// Beyond the generation in force.
    fn old(&self) -> usize {
        self.most.saturating_sub(self.generation())
    }
}

impl Workers {
    /// From now on, by the first process of each balancer.
    pub fn watch(masters: impl IntoIterator<Item = i64>) -> Self {
        let (mut each, mut watch) = (Vec::new(), JoinSet::new());
        for master in masters {
            let first: BTreeSet<u32> = children(master).into_iter().collect();
            let its = Arc::new(Mutex::new(Seen { first, ..Seen::default() }));
            each.push(its.clone());
            watch.spawn(async move {
                loop {
                    its.lock().unwrap().look(&children(master));
                    tokio::time::sleep(OFTEN).await;
                }
            });
        }
        Self { each, watch }
    }

    /// The end: the most reloads of one of them, and the most workers of before that one had at a time.
    pub async fn end(mut self) -> (usize, usize) {
        self.watch.shutdown().await;
        let most = |of: fn(&Seen) -> usize| {
            self.each.iter().map(|s| of(&s.lock().unwrap())).max().unwrap_or_default()
        };
        (most(Seen::reloads), most(Seen::old))
    }
}
