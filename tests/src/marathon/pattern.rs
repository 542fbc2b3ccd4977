//! Regular expressions as constraints use them: the whole value must match.

/// What a value must look like as a whole.
pub(super) struct Pattern(regex::Regex);

impl Pattern {
    /// None for what is no expression.
    pub(super) fn new(text: &str) -> Option<Self> {
        regex::Regex::new(&format!("^(?:{text})$")).ok().map(Self)
    }

    pub(super) fn matches(&self, value: &str) -> bool {
        self.0.is_match(value)
    }
}
