//! Names that documents take, made of names that somebody else gave.

use std::collections::BTreeSet;

/// The longest name of a service: Mesos adds nine characters for its own DNS.
pub(super) const LONGEST: usize = 54;

/// Names that were given, each once.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    /// The nearest name that is free; `otherwise` where nothing of `wanted` can be in a name.
    pub(super) fn give(&mut self, wanted: &str, otherwise: &str, longest: usize) -> String {
        let base = label(wanted, longest);
        let base = if base.is_empty() { otherwise.to_owned() } else { base };
        let mut name = base.clone();
        let mut count = 1_usize;
        while !self.0.insert(name.clone()) {
            count += 1;
            let end = format!("-{count}");
            name = format!("{}{end}", label(&base, longest.saturating_sub(end.len())));
        }
        name
    }
}

/// The text as a DNS label: lower case, `-` for everything else, cut at `longest`. Empty where nothing is left.
pub(super) fn label(text: &str, longest: usize) -> String {
    let fit = |c: char| if is_inner(c) { c } else { '-' };
    let all: String = text.to_lowercase().chars().map(fit).collect();
    let cut: String = all.trim_start_matches('-').chars().take(longest).collect();
    cut.trim_end_matches('-').to_owned()
}

fn is_inner(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// Whether it is a DNS label already.
pub(super) fn is_label(text: &str) -> bool {
    let inner = |c: char| is_inner(c) || c == '-';
    !text.is_empty()
        && text.len() <= 63
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether Docker takes it as the name of a volume or of a network.
pub(super) fn is_docker_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    text.len() <= 128
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(inner)
}

/// Whether it can be the name of an environment variable in a document.
pub(super) fn is_env_name(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '.' | '-');
    let inner = |c: char| first(c) || c.is_ascii_digit();
    text.len() <= 253 && text.starts_with(first) && text.chars().all(inner)
}

/// Whether it can be the place of a mount: an absolute path that leads nowhere else.
pub(super) fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && text.len() <= 1024
        && !text.chars().any(|c| c == ':' || c.is_control())
        && !text.split('/').any(|part| part == "..")
}

/// Whether it can be the place of a mount in a container.
pub(super) fn is_mount_path(text: &str) -> bool {
    is_path(text) && text.split('/').any(|part| !part.is_empty() && part != ".")
}

/// What a mount at a path is called, as far as that can be told from the path.
pub(super) fn of_path(path: &str) -> &str {
    path.rsplit('/').find(|part| part.contains(is_inner)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_label_and_given_once() {
        let mut names = Names::default();
        let mut give = |wanted: &str| names.give(wanted, "service", LONGEST);
        assert_eq!(give("shop/web"), "shop-web");
        assert_eq!(give("shop-web"), "shop-web-2");
        assert_eq!(give("Shop_Web.v1"), "shop-web-v1");
        assert_eq!(give("/é/"), "service");
        assert_eq!(give("__"), "service-2");
        let long = "a".repeat(80);
        assert_eq!(give(&long), "a".repeat(54));
        assert_eq!(give(&long), format!("{}-2", "a".repeat(52)));
        for odd in ["-", "a-", "-a-", "9", "Ünï", "a/b//c", &"-".repeat(99), &"é-".repeat(70)] {
            let name = give(odd);
            assert!(is_label(&name) && name.len() <= LONGEST, "{odd}: {name}");
        }
    }
}
