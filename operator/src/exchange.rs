//! What fleets tell each other from pass to pass, see [`Outward`].
//!
//! A word takes its time: whoever says "send him requests" and then "not any more" must not end him while another fleet has
//! heard only the first. Every word therefore says which words of the others it was made of, and each fleet keeps its own
//! until all others have spoken after hearing what came later.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bell::Doorbell;
use crate::model::{Elsewhere, FleetName, Outward};

/// What one fleet says, on its way to the others.
#[derive(Debug, Clone)]
pub struct Word {
    /// Which of its words this is. The same number: no news.
    number: u64,
    said: Arc<Outward>,
    /// The numbers of the words of others that it was made of.
    made_of: BTreeMap<FleetName, u64>,
}

/// One fleet's side of the conversation.
#[derive(Debug)]
pub struct Voice {
    fleet: FleetName,
    number: u64,
    /// What it has said, oldest first: the newest, and those that somebody who speaks may not have heard.
    own: VecDeque<(u64, Arc<Outward>)>,
    /// The newest of those that are not kept any more.
    dropped: u64,
    heard: BTreeMap<FleetName, Word>,
}

impl Voice {
    /// The side of a fleet that has said and heard nothing.
    pub fn new(fleet: FleetName) -> Self {
        let (own, heard) = (VecDeque::new(), BTreeMap::new());
        Self { fleet, number: 0, own, dropped: 0, heard }
    }

    /// Takes a newer word of another fleet.
    pub fn hear(&mut self, of: &FleetName, word: Word) {
        self.heard.insert(of.clone(), word);
    }

    /// What is known of the others.
    pub fn elsewhere(&self) -> Elsewhere {
        let mut out = Elsewhere::default();
        let mut oldest = self.number;
        for (name, word) in &self.heard {
            let known = self.known_to(word);
            // Of one that spoke before it heard what is not kept any more nobody can tell what it may still act upon.
            if known >= self.dropped {
                out.said.insert(name.clone(), Arc::clone(&word.said));
                oldest = oldest.min(known);
            }
        }
        let later = self.own.iter().filter(|(number, _)| *number > oldest);
        out.unheard.extend(later.map(|(_, said)| Arc::clone(said)));
        out
    }

    /// Which of our words another one's word was made of, 0 for none.
    fn known_to(&self, word: &Word) -> u64 {
        word.made_of.get(&self.fleet).copied().unwrap_or(0)
    }

    /// Says something to all others.
    pub fn say(&mut self, outward: &Arc<Outward>) -> Word {
        match self.own.back_mut() {
            Some((_, last)) if outward.is_no_news_after(last) => *last = Arc::clone(outward),
            Some(_) | None => {
                self.number += 1;
                self.own.push_back((self.number, Arc::clone(outward)));
            }
        }
        let heard = self.heard.values().map(|word| self.known_to(word));
        let oldest = heard.min().unwrap_or(self.number);
        while self.own.len() > 1 && self.own.front().is_some_and(|(number, _)| *number <= oldest) {
            self.dropped = self.own.pop_front().map_or(self.dropped, |(number, _)| number);
        }
        let made_of = self.heard.iter().map(|(name, word)| (name.clone(), word.number)).collect();
        Word { number: self.number, said: Arc::clone(outward), made_of }
    }
}

/// Where the loops of all fleets leave their newest word. Cheap to clone.
#[derive(Clone, Default)]
pub struct Exchange(Arc<Mutex<Board>>);

#[derive(Default)]
struct Board {
    voices: BTreeMap<FleetName, Voice>,
    words: BTreeMap<FleetName, Word>,
    bells: BTreeMap<FleetName, Doorbell>,
}

fn voice_of<'v>(voices: &'v mut BTreeMap<FleetName, Voice>, fleet: &FleetName) -> &'v mut Voice {
    voices.entry(fleet.clone()).or_insert_with(|| Voice::new(fleet.clone()))
}

impl Exchange {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rings `bell` whenever another fleet than this has something new to say, or has heard what this one said.
    pub fn join(&self, fleet: &FleetName, bell: Doorbell) {
        self.board().bells.insert(fleet.clone(), bell);
    }

    /// What all others said last.
    pub fn hear(&self, fleet: &FleetName) -> Elsewhere {
        let Board { voices, words, .. } = &mut *self.board();
        let voice = voice_of(voices, fleet);
        for (of, word) in words.iter().filter(|(name, _)| *name != fleet) {
            voice.hear(of, word.clone());
        }
        voice.elsewhere()
    }

    /// What this fleet says from now on, having acted upon what it heard last.
    pub fn tell(&self, fleet: &FleetName, outward: &Arc<Outward>) {
        let Board { voices, words, bells } = &mut *self.board();
        let voice = voice_of(voices, fleet);
        let word = voice.say(outward);
        let before = words.insert(fleet.clone(), word.clone());
        // Who hears that he was heard says nothing new by that, and it ends there.
        let concerns = |other: &FleetName| {
            before.as_ref().is_none_or(|before| {
                before.number != word.number || before.made_of.get(other) != word.made_of.get(other)
            })
        };
        let others = bells.iter().filter(|(name, _)| *name != fleet && concerns(name));
        others.for_each(|(_, bell)| bell.ring());
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::model::Revision;

    fn name(name: &str) -> FleetName {
        FleetName::new(name).unwrap()
    }

    fn outward(revision: &str) -> Arc<Outward> {
        Arc::new(Outward { revision: Some(Revision(revision.into())), ..Outward::default() })
    }

    fn unheard(voice: &Voice) -> Vec<String> {
        let words = voice.elsewhere().unheard;
        words.iter().map(|w| w.revision.as_ref().unwrap().0.to_string()).collect()
    }

    #[test]
    fn a_word_is_unheard_until_the_others_have_spoken_after_hearing_the_next() {
        let (mut a, mut b) = (Voice::new(name("a")), Voice::new(name("b")));
        let hears = |to: &mut Voice, from: &mut Voice, says: &str| {
            let word = from.say(&outward(says));
            to.hear(&from.fleet.clone(), word);
        };
        hears(&mut b, &mut a, "a1");
        hears(&mut a, &mut b, "b1");
        assert!(unheard(&a).is_empty(), "b1 was made of a1");
        let late = a.say(&outward("a2"));
        hears(&mut a, &mut b, "b1");
        assert_eq!(unheard(&a), ["a2"]);
        let newest = a.say(&outward("a3"));
        b.hear(&name("a"), late);
        hears(&mut a, &mut b, "b2");
        assert_eq!(unheard(&a), ["a3"], "b2 shows what became of a2");
        b.hear(&name("a"), newest);
        hears(&mut a, &mut b, "b2");
        assert!(unheard(&a).is_empty(), "b said no news, and had heard");
        a.say(&outward("a3"));
        assert_eq!(a.own.len(), 1, "only the newest is kept");
    }

    #[test]
    fn of_several_the_slowest_is_waited_for() {
        let mut a = Voice::new(name("a"));
        let made_of = |n: u64| Word {
            number: 1,
            said: outward("b"),
            made_of: [(name("a"), n)].into_iter().collect(),
        };
        a.hear(&name("b"), made_of(0));
        a.hear(&name("c"), made_of(0));
        for says in ["a1", "a2", "a3"] {
            a.say(&outward(says));
        }
        a.hear(&name("b"), made_of(3));
        a.hear(&name("c"), made_of(1));
        assert_eq!(unheard(&a), ["a2", "a3"]);
        a.say(&outward("a3"));
        a.hear(&name("c"), made_of(3));
        assert!(unheard(&a).is_empty());
    }

    #[test]
    fn whoever_spoke_before_hearing_what_nobody_keeps_has_said_nothing() {
        let (mut a, mut b) = (Voice::new(name("a")), Voice::new(name("b")));
        let early = b.say(&outward("b1"));
        a.say(&outward("a1"));
        let newest = a.say(&outward("a2"));
        a.hear(&name("b"), early);
        assert!(a.elsewhere().said.is_empty(), "it may act upon a1, and a1 is forgotten");
        a.say(&outward("a3"));
        a.say(&outward("a4"));
        b.hear(&name("a"), newest);
        a.hear(&name("b"), b.say(&outward("b1")));
        assert_eq!(a.elsewhere().said.len(), 1);
        assert_eq!(unheard(&a), ["a3", "a4"], "they were kept for it");
    }

    #[test]
    fn the_bell_rings_for_news_and_for_having_been_heard_and_then_no_more() {
        let exchange = Exchange::default();
        let fleets = [name("a"), name("b")];
        let bells = [Doorbell::new(), Doorbell::new()];
        for (fleet, bell) in fleets.iter().zip(&bells) {
            exchange.join(fleet, bell.clone());
        }
        let mut passes = 0;
        let mut rung = vec![0, 1];
        while let Some(who) = rung.pop() {
            passes += 1;
            assert!(passes < 20, "they never come to rest");
            exchange.hear(&fleets[who]);
            exchange.tell(&fleets[who], &outward("same"));
            let other = 1 - who;
            if bells[other].rung().now_or_never().is_some() && !rung.contains(&other) {
                rung.insert(0, other);
            }
        }
        for fleet in &fleets {
            let known = exchange.hear(fleet);
            assert_eq!((known.said.len(), known.unheard.len()), (1, 0), "{fleet}");
        }
    }
}
