//! Event streams: who listens to what, and how far behind they are.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::super::event::Event;
use super::super::path::AppId;
use super::super::release::Release;
use super::super::render::{self, Embed};
use super::super::stamp::Stamp;
use super::super::state::State;
use super::super::tree::Tree;
use super::options::Options;

/// What event streams do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// They tell what happens, one event at a time.
    Fine,
    /// They tell two things that happen in one event, as some releases did.
    Bundled,
    /// They stay open and say nothing, not even that they live.
    Silent,
    /// They say a line that never ends.
    Babbling,
}

/// One who listens.
struct Listener {
    member: usize,
    to: Sender<Bytes>,
    kinds: Vec<String>,
    /// Whether it gets the trees of deployments, too.
    heavy: bool,
    /// Waits for a second one, when two go together.
    half: Option<String>,
}

/// All who listen.
pub(super) struct Hub {
    release: Release,
    heartbeat: Duration,
    outstanding: usize,
    listeners: Mutex<Vec<Listener>>,
    mood: watch::Sender<Mood>,
    /// Who stopped to listen since somebody told.
    left: Arc<Mutex<Vec<String>>>,
}

/// What a stream is asked for with.
pub(super) struct Wish {
    pub(super) member: usize,
    pub(super) client: String,
    pub(super) kinds: Vec<String>,
    pub(super) light: bool,
}

impl Hub {
    pub(super) fn new(options: &Options) -> Self {
        let release = options.release;
        Self {
            release,
            heartbeat: options.heartbeat,
            outstanding: options.outstanding.unwrap_or(if release.has(5) { 1024 } else { 50 }),
            listeners: Mutex::default(),
            mood: watch::Sender::new(Mood::Fine),
            left: Arc::default(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.listeners.lock().unwrap().iter().filter(|l| !l.to.is_closed()).count()
    }

    pub(super) fn mood(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// Ends the streams of a member, or of all.
    pub(super) fn close(&self, member: Option<usize>) {
        let mut listeners = self.listeners.lock().unwrap();
        listeners.retain(|l| member.is_some_and(|member| member != l.member));
    }

    pub(super) fn raw(&self, text: &str) {
        for listener in self.listeners.lock().unwrap().iter() {
            let _ = listener.to.try_send(Bytes::from(text.to_owned()));
        }
    }

    /// A new stream; the first that it hears of is itself.
    pub(super) fn attach(&self, state: &State, wish: Wish, now: Stamp) -> Body {
        let (to, from) = channel(self.outstanding.max(1));
        let mut listeners = self.listeners.lock().unwrap();

        // Before 1.6 nobody could ask for less, and from 1.7 on nobody gets more.
        let light = self.release.has(7) || (self.release.has(6) && wish.light);
        let listener =
            Listener { member: wish.member, to, kinds: wish.kinds, heavy: !light, half: None };
        listeners.push(listener);
        drop(listeners);
        let body = json!({"remoteAddress": wish.client});
        let (client, left) = (wish.client, Arc::clone(&self.left));
        self.publish(state, &[Event::new("event_stream_attached", now, body)]);
        // The first tick of an interval is at once.
        let mut beat = interval_at(Instant::now() + self.heartbeat, self.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let pipe = Pipe { from, beat, mood: self.mood.subscribe(), feed: false, client, left };
        let frames = stream::unfold(pipe, |mut pipe| async move {
            pipe.next().await.map(|frame| (Ok::<_, std::io::Error>(frame), pipe))
        });
        Body::from_stream(frames)
    }

    /// That some stopped to listen, told once.
    pub(super) fn detached(&self, now: Stamp) -> Vec<Event> {
        let left = std::mem::take(&mut *self.left.lock().unwrap());
        let told = |client| {
            let body = json!({"remoteAddress": client});
            Event::new("event_stream_detached", now, body)
        };
        left.into_iter().map(told).collect()
    }

    /// Tells everybody who wants to know.
    pub(super) fn publish(&self, state: &State, events: &[Event]) {
        let mut listeners = self.listeners.lock().unwrap();
        let (bundled, closes) = (*self.mood.borrow() == Mood::Bundled, self.release.has(8));
        for event in events {
            let mut light = None;
            let mut heavy = None;
            listeners.retain_mut(|listener| {
                if !listener.kinds.is_empty()
                    && !listener.kinds.iter().any(|kind| kind == event.kind)
                {
                    return !listener.to.is_closed();
                }
                let text = if listener.heavy && event.trees.is_some() {
                    heavy.get_or_insert_with(|| with_trees(state, event).to_string())
                } else {
                    light.get_or_insert_with(|| event.body.to_string())
                };
                let frame = match (bundled, listener.half.take()) {
                    (true, None) => {
                        listener.half = Some(text.clone());
                        return !listener.to.is_closed();
                    }
                    (_, Some(first)) => {
                        format!("event: {}\r\ndata: {first}\r\ndata: {text}\r\n\r\n", event.kind)
                    }
                    (false, None) => format!("event: {}\r\ndata: {text}\r\n\r\n", event.kind),
                };
                match listener.to.try_send(frame.into()) {
                    Ok(()) => true,
                    // Who does not read is cut off; before 1.8 events were lost in silence.
                    Err(TrySendError::Full(_)) => !closes,
                    Err(TrySendError::Closed(_)) => false,
                }
            });
        }
    }
}

fn with_trees(state: &State, event: &Event) -> Value {
    let mut body = event.body.clone();
    if let Some((before, after)) = &event.trees {
        let shown = |tree: &Tree| {
            let all = (true, true, Embed::default());
            render::group(state, tree, &AppId::root(), all, Stamp::default())
        };
        body["plan"]["original"] = shown(before);
        body["plan"]["target"] = shown(after);
    }
    body
}

/// What goes down one stream.
struct Pipe {
    from: Receiver<Bytes>,
    beat: Interval,
    mood: watch::Receiver<Mood>,
    /// A heartbeat is two writes: a bare CR, then LF.
    feed: bool,
    client: String,
    left: Arc<Mutex<Vec<String>>>,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if let Ok(mut left) = self.left.lock() {
            left.push(std::mem::take(&mut self.client));
        }
    }
}

impl Pipe {
    async fn next(&mut self) -> Option<Bytes> {
        if std::mem::take(&mut self.feed) {
            return Some(Bytes::from_static(b"\n"));
        }
        loop {
            let mood = *self.mood.borrow_and_update();
            if mood == Mood::Babbling {
                tokio::time::sleep(Duration::from_millis(5)).await;
                if self.from.is_closed() && self.from.is_empty() {
                    return None;
                }
                return Some(Bytes::from_static(&[b'x'; 16 << 10]));
            }
            tokio::select! {
                frame = self.from.recv() => match frame {
                    Some(_) if mood == Mood::Silent => {}
                    frame => return frame,
                },
                _ = self.beat.tick() => {
                    if mood != Mood::Silent {
                        self.feed = true;
                        return Some(Bytes::from_static(b"\r"));
                    }
                }
                changed = self.mood.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                }
            }
        }
    }
}
