//! A configuration under construction: each line knows who is to blame if nginx does not take it.

use crate::model::PoolName;

/// What can be left out of a configuration, so that the rest is in force.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Culprit {
    /// Nothing: it is evenkeel's own.
    Ours,
    /// A route, by its place in the routing.
    Route(usize),
    /// Every route that leads to a pool.
    Pool(PoolName),
    /// A listener with its routes.
    Listener(String),
    /// A certificate.
    Certificate(String),
    /// What a person adds.
    Part(Part),
}

/// The places where people add text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The main context.
    Global,
    /// `http`.
    Defaults,
    /// Each `server`.
    Frontend,
    /// Each `location`.
    Backend,
}

impl Part {
    /// From the innermost, which people use most.
    pub(super) const ALL: [Self; 4] = [Self::Backend, Self::Frontend, Self::Defaults, Self::Global];

    /// What documents call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Defaults => "defaults",
            Self::Frontend => "frontend",
            Self::Backend => "backend",
        }
    }
}

/// Lines, with whom each belongs to.
#[derive(Debug)]
pub(super) struct Page {
    text: String,
    culprits: Vec<Culprit>,
    depth: usize,
    current: Vec<Culprit>,
}

impl Page {
    pub(super) const fn new() -> Self {
        Self { text: String::new(), culprits: Vec::new(), depth: 0, current: Vec::new() }
    }

    /// What `write` adds belongs to `culprit`.
    pub(super) fn by(&mut self, culprit: Culprit, write: impl FnOnce(&mut Self)) {
        self.current.push(culprit);
        write(self);
        self.current.pop();
    }

    /// A line of its own.
    pub(super) fn line(&mut self, line: impl AsRef<str>) {
        let line = line.as_ref();
        if !line.is_empty() {
            self.text.extend(std::iter::repeat_n("    ", self.depth));
        }
        self.text.push_str(line);
        self.text.push('\n');
        self.culprits.push(self.current.last().cloned().unwrap_or(Culprit::Ours));
    }

    /// `head { … }`.
    pub(super) fn block(&mut self, head: impl AsRef<str>, write: impl FnOnce(&mut Self)) {
        self.line(format!("{} {{", head.as_ref()));
        self.depth += 1;
        write(self);
        self.depth -= 1;
        self.line("}");
    }

    /// What a person adds, as it is.
    pub(super) fn fragment(&mut self, part: Part, text: &str) {
        self.by(Culprit::Part(part), |page| text.lines().for_each(|line| page.line(line.trim())));
    }

    pub(super) fn finish(self) -> (String, Vec<Culprit>) {
        (self.text, self.culprits)
    }
}
