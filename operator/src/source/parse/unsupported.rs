//! What the schema takes and this version does not do yet: refused with a message, never ignored.
//!
//! Whoever makes one of these work deletes its line, and the lowering then has to answer for it.

use std::fmt::Write;

use super::node::{Flaw, Node, Value};

/// One thing that is not done yet.
struct NotYet {
    kind: &'static str,
    /// Fields from the root; `*` is every entry of a list. `kind` is the document as a whole.
    path: &'static [&'static str],
    when: When,
    reason: &'static str,
    hint: &'static str,
}

/// When it counts as asked for.
enum When {
    /// The field is there.
    Given,
    /// The mapping is there and lacks one of these.
    Lacks(&'static [&'static str]),
}

#[rustfmt::skip] // one line, one thing
const TABLE: &[NotYet] = &[
    NotYet { kind: "Fleet", path: &["spec", "backend", "marathon"], when: When::Given, reason: "only Docker hosts are driven yet", hint: "use backend.docker" },
    NotYet { kind: "Fleet", path: &["spec", "backend", "docker", "hosts", "*", "tls"], when: When::Lacks(&["caFile", "certFile", "keyFile"]), reason: "TLS to an engine needs all of caFile, certFile and keyFile yet", hint: "give all three files" },
];

/// Everything that the document asks for and this version does not do.
pub(super) fn refuse(kind: &str, document: &Node, out: &mut Vec<Flaw>) {
    for entry in TABLE.iter().filter(|entry| entry.kind == kind) {
        visit(entry, document, entry.path, &mut String::new(), out);
    }
}

fn visit(entry: &NotYet, node: &Node, rest: &[&str], path: &mut String, out: &mut Vec<Flaw>) {
    let Some((step, rest)) = rest.split_first() else {
        if asked(&entry.when, &node.value) {
            let message = format!("{path} is not implemented yet: {}", entry.reason);
            out.push(Flaw::new(node.pos, message).hint(entry.hint));
        }
        return;
    };
    let length = path.len();
    if *step == "*" {
        for (index, item) in node.items().iter().enumerate() {
            let _ = write!(path, "[{index}]");
            visit(entry, item, rest, path, out);
            path.truncate(length);
        }
    } else if let Some(field) = node.field(step) {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(step);
        let at_key = Node { pos: field.pos, value: field.value.value.clone() };
        visit(entry, if rest.is_empty() { &at_key } else { &field.value }, rest, path, out);
        path.truncate(length);
    }
}

fn asked(when: &When, value: &Value) -> bool {
    match (when, value) {
        (When::Given, _) => true,
        (When::Lacks(names), Value::Map(fields)) => {
            names.iter().any(|name| fields.iter().all(|f| f.key != *name))
        }
        // Of the wrong type, which the schema says.
        (When::Lacks(_), _) => false,
    }
}
