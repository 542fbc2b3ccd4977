//! Texts of somebody else's: what fits into a document, and what may be shown.

use evenkeel_crds::Signal;

/// The most words of a command in a document.
pub(super) const MOST_WORDS: usize = 200;
/// The most variables of the environment in a document.
pub(super) const MOST_VARIABLES: usize = 500;
/// The longest word or value.
const LONGEST: usize = 32_768;

/// Whether a word or value can be in a document.
pub(super) fn fits(text: &str) -> bool {
    text.chars().count() <= LONGEST && !text.contains('\0')
}

/// A text for a message: short, and nothing that a terminal would obey.
pub(super) fn shown(text: &str) -> String {
    let clean = |c: char| if c.is_control() { '?' } else { c };
    text.chars().take(60).map(clean).collect()
}

/// A signal by its name, with or without its first three letters.
pub(super) fn signal(name: &str) -> Option<Signal> {
    let name = name.to_ascii_uppercase();
    let full = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    serde_json::from_value(full.into()).ok()
}
