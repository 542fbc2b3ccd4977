//! What was not carried over, as lines for people.

use std::collections::BTreeMap;

use super::{Import, Note};

/// One line, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What there is to say.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// How many subjects are named where many are told the same.
const NAMED: usize = 3;

/// A line for each thing that was left out and for each that Docker hosts will have nothing like, in the order of the subjects;
/// then what makes no difference there, once for all that it is said of; then what is to be known of all.
pub fn lines(import: &Import) -> Vec<Line> {
    let mut out: Vec<(&str, Line)> = Vec::new();
    for left in &import.left_out {
        let text = format!("{}: left out: {}", left.subject, left.why);
        out.push((&left.subject, Line { text, hint: left.hint.clone() }));
    }
    let mut same: BTreeMap<(&str, &str), Vec<&Note>> = BTreeMap::new();
    for note in &import.notes {
        if note.lost {
            let text = format!("{}: {}: {}", note.subject, note.field, note.said);
            out.push((&note.subject, Line { text, hint: note.hint.clone() }));
        } else {
            same.entry((&note.field, &note.said)).or_default().push(note);
        }
    }
    out.sort_by(|a, b| a.0.cmp(b.0));
    let mut out: Vec<Line> = out.into_iter().map(|(_, line)| line).collect();
    for ((field, said), notes) in same {
        let text = format!("{}: {field}: {said}", subjects(&notes));
        out.push(Line { text, hint: notes.iter().find_map(|note| note.hint.clone()) });
    }
    let remarks = import.remarks.iter();
    out.extend(remarks.map(|text| Line { text: text.clone(), hint: None }));
    out
}

fn subjects(notes: &[&Note]) -> String {
    let mut names: Vec<&str> = notes.iter().map(|note| note.subject.as_str()).collect();
    names.dedup();
    match names.len().checked_sub(NAMED) {
        None | Some(0) => names.join(", "),
        Some(more) => {
            let first = names.get(..NAMED).unwrap_or_default().join(", ");
            format!("{first} and {more} more")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::LeftOut;

    #[test]
    fn what_is_lost_is_said_of_each_and_the_rest_once() {
        let note = |subject: &str, field: &str, said: &str, lost| Note {
            subject: subject.into(),
            field: field.into(),
            said: said.into(),
            hint: None,
            lost,
        };
        let mut import = Import {
            notes: vec![
                note("/c", "disk", "kept", true),
                note("/a", "cmd", "same", false),
                note("/a", "disk", "kept", true),
            ],
            left_out: vec![LeftOut { subject: "/b".into(), why: "no image".into(), hint: None }],
            remarks: vec!["by the way".into()],
            ..Import::default()
        };
        let told = |import: &Import| -> Vec<String> {
            lines(import).into_iter().map(|line| line.text).collect()
        };
        let own = ["/a: disk: kept", "/b: left out: no image", "/c: disk: kept"];
        let all: Vec<&str> = own.into_iter().chain(["/a: cmd: same", "by the way"]).collect();
        assert_eq!(told(&import), all);
        import.notes.extend(["/d", "/e", "/f"].map(|app| note(app, "cmd", "same", false)));
        assert_eq!(told(&import)[3], "/a, /d, /e and 1 more: cmd: same");
    }
}
