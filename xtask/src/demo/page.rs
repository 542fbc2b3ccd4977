//! The documents of the walk-through, as its page shows them: what is read there is what is played here.

use anyhow::{Result, bail};

/// Where they are.
pub(super) const PAGE: &str = "docs/walkthroughs/one-host.md";
const DIRECTORY: &str = "# one-host/";

/// Each document by the name of its file.
pub(super) fn documents(page: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for block in page.split("\n```yaml\n").skip(1) {
        let Some((text, _)) = block.split_once("\n```") else { bail!("a block of {PAGE} is open") };
        let name = text.lines().next().and_then(|line| line.strip_prefix(DIRECTORY));
        if let Some(name) = name {
            found.push((name.trim().to_owned(), format!("{text}\n")));
        }
    }
    if found.is_empty() {
        bail!("{PAGE} has no documents that begin with {DIRECTORY}");
    }
    Ok(found)
}

/// What is replaced, so that the demo meets nothing else on the engine; each must be there.
pub(super) fn rewritten(text: &str, changes: &[(String, String)]) -> Result<String> {
    let mut text = text.to_owned();
    for (from, to) in changes {
        if !text.contains(from.as_str()) {
            bail!("{PAGE} does not say {from:?} any more");
        }
        text = text.replace(from.as_str(), to);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_blocks_are_documents() {
        let page = "x\n```yaml\n# one-host/a.yaml\nkind: A\n```\n\n```yaml\nkind: B\n```\n";
        let found = documents(page).unwrap();
        assert_eq!(found, [("a.yaml".to_owned(), "# one-host/a.yaml\nkind: A\n".to_owned())]);
        assert!(documents("nothing").is_err());
        assert!(documents("x\n```yaml\n# one-host/a.yaml\n").is_err());
    }

    #[test]
    fn what_is_replaced_must_be_there() {
        let change = [("a: 1".to_owned(), "a: 2".to_owned())];
        assert_eq!(rewritten("a: 1, a: 1", &change).unwrap(), "a: 2, a: 2");
        assert!(rewritten("b: 1", &change).is_err());
    }
}
