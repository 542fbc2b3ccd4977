//! Links in documents lead somewhere: to a file of the tree, and to a heading in it.

use std::collections::{BTreeMap, BTreeSet};

use crate::tidy::{Finding, has_extension};
use crate::tree::Text;

/// Every link of `documents` that leads nowhere; `paths` is every file of the tree.
pub(crate) fn dangling(documents: &[Text], paths: &[String]) -> Vec<Finding> {
    let mut places: BTreeSet<&str> = BTreeSet::new();
    for path in paths {
        places.insert(path);
        places.extend(path.match_indices('/').map(|(at, _)| &path[..at]));
    }
    let headings: BTreeMap<&str, BTreeSet<String>> =
        documents.iter().map(|file| (file.path.as_str(), anchors(&file.text))).collect();
    let mut findings = Vec::new();
    for file in documents.iter().filter(|file| has_extension(&file.path, "md")) {
        for (line, target) in links(&file.text) {
            if let Some(what) = problem(&file.path, target, &places, &headings) {
                findings.push(Finding { path: file.path.clone(), line, what });
            }
        }
    }
    findings
}

fn problem(
    from: &str,
    target: &str,
    places: &BTreeSet<&str>,
    headings: &BTreeMap<&str, BTreeSet<String>>,
) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let Some(place) = resolve(from, path) else {
        return Some(format!("the link {target} leaves the repository"));
    };
    if !place.is_empty() && !places.contains(place.as_str()) {
        return Some(format!("the link {target} leads to no file"));
    }
    match headings.get(place.as_str()) {
        Some(known) if !anchor.is_empty() && !known.contains(anchor) => {
            Some(format!("the link {target} leads to no heading of {place}"))
        }
        _ => None,
    }
}

/// `path` as seen from the document `from`; `None` if it climbs out.
fn resolve(from: &str, path: &str) -> Option<String> {
    if path.is_empty() {
        return Some(from.to_owned());
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    if path.starts_with('/') {
        parts.clear();
    }
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The lines outside of code fences, code spans blanked.
fn prose(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut fenced = false;
    (1..).zip(text.lines()).filter_map(move |(number, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        if fence || fenced {
            return None;
        }
        let spans = line.split('`').enumerate();
        Some((number, spans.filter(|(at, _)| at % 2 == 0).map(|(_, span)| span).collect()))
    })
}

/// `](target)` and `[name]: target`.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (number, line) in prose(text) {
        // Looked for in the prose, taken from the text: the two differ only in code spans.
        let whole = lines[number - 1];
        for piece in line.split("](").skip(1) {
            let target = piece.split([')', ' ']).next().unwrap_or_default();
            if let Some(at) = whole.find(&format!("]({target}")) {
                found.push((number, &whole[at + 2..at + 2 + target.len()]));
            }
        }
        if line.starts_with('[')
            && let Some((_, target)) = whole.split_once("]: ")
        {
            found.push((number, target.split(' ').next().unwrap_or_default()));
        }
    }
    found
}

/// What a link can point at: headings as the usual renderers name them, repeated ones numbered.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let title = line.trim_start_matches('#');
        if fenced || title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let slug: String = title
            .trim()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .flat_map(char::to_lowercase)
            .collect();
        let times = seen.entry(slug.clone()).or_default();
        anchors.insert(if *times == 0 { slug } else { format!("{slug}-{times}") });
        *times += 1;
    }
    anchors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let documents = [
            Text { path: "docs/a.md".into(), text: text.into() },
            Text {
                path: "README.md".into(),
                text: "# The Top: `keel`!\n## Twice\n## Twice\n".into(),
            },
        ];
        let paths = ["docs/a.md", "README.md", "operator/src/lib.rs"].map(str::to_owned);
        dangling(&documents, &paths).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn links_that_lead_somewhere() {
        let text = "# Here\n[a](../README.md) [b](../README.md#the-top-keel) [c](#here) [d](../operator/src)\n\
                    [e](/README.md#twice-1) [f](https://example.com/x) [g](../README.md \"title\")\n\
                    [h]: ../README.md#twice\n![i](./a.md)\n";
        assert_eq!(found(text), [""; 0]);
    }

    #[test]
    fn links_that_do_not() {
        let text = "x\n[a](b.md) [b](../README.md#nowhere)\n[c](#here) [d](../../etc)\n[e]: ../docs/b.md\n";
        assert_eq!(
            found(text),
            [
                "docs/a.md:2: the link b.md leads to no file",
                "docs/a.md:2: the link ../README.md#nowhere leads to no heading of README.md",
                "docs/a.md:3: the link #here leads to no heading of docs/a.md",
                "docs/a.md:3: the link ../../etc leaves the repository",
                "docs/a.md:4: the link ../docs/b.md leads to no file",
            ]
        );
    }

    #[test]
    fn code_has_no_links() {
        assert_eq!(
            found("```\n[a](b.md)\n# h\n```\n`[a](b.md)` and `x` [b](../README.md)\n"),
            [""; 0]
        );
        assert_eq!(found("`x` [a](b.md)").len(), 1);
    }
}
