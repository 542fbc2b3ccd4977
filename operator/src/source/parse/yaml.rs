//! Bytes into documents whose every value has its place, within limits; knows YAML and nothing of
//! evenkeel's kinds.
//!
//! YAML 1.2 core: `no`, `on` and `12:30` are text, `0o17` is 15, `1e3` is a number. What tempts
//! into mistakes is refused: tags, merge keys, duplicate and non-text keys.
//!
//! A syntax error costs the document it is in: reading goes on at the next line that begins with
//! `---`, which YAML allows nowhere else than between documents.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::Number;

use super::Limits;
use super::node::{Field, Flaw, Node, Pos, Value, printable, quoted, shown};

/// One document of a file.
#[derive(Debug)]
pub(super) struct Doc {
    /// Where it begins.
    pub(super) pos: Pos,
    /// Its content, as far as it could be read; `None` when there is none.
    pub(super) root: Option<Node>,
    /// What is wrong with it as YAML.
    pub(super) flaws: Vec<Flaw>,
    /// False when it could not be read to its end: anything may be missing.
    pub(super) complete: bool,
}

impl Doc {
    /// Its content, an empty one where there is none.
    pub(super) fn into_root(self) -> Node {
        self.root.unwrap_or(Node { pos: self.pos, value: Value::Null })
    }

    fn unreadable(flaw: Flaw) -> Self {
        Self { pos: flaw.pos, root: None, flaws: vec![flaw], complete: false }
    }
}

/// Syntax errors told for one file; a file with more is not YAML at all.
const MAX_ERRORS: usize = 20;

/// Flaws told for one document beside its syntax error.
const MAX_FLAWS: usize = 100;

const TEMPLATE: &str = "where this is a template: evenkeel reads only what a template has rendered";

/// Every document of a file. The file's own problems are documents without content.
pub(super) fn read(bytes: &[u8], limits: &Limits) -> Vec<Doc> {
    match text(bytes, limits) {
        Ok(text) => documents(text, limits),
        Err(flaw) => vec![Doc::unreadable(flaw)],
    }
}

fn text<'a>(bytes: &'a [u8], limits: &Limits) -> Result<&'a str, Flaw> {
    if bytes.len() > limits.file_bytes {
        let message =
            format!("the file has {} bytes, and {} are the most", bytes.len(), limits.file_bytes);
        return Err(Flaw::new(Pos::default(), message).hint("split it into several files"));
    }
    let place = |at: usize| {
        let before = String::from_utf8_lossy(bytes.get(..at).unwrap_or_default());
        let (line, start) = line_starts(&before).enumerate().last().unwrap_or((0, 0));
        let column = before.get(start..).unwrap_or_default().chars().count();
        Pos { line: line + 1, column: column + 1 }
    };
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let flaw = Flaw::new(place(e.valid_up_to()), "the file is not UTF-8 text");
        let utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
        flaw.hint(if utf16 { "it looks like UTF-16: save it as UTF-8" } else { "save it as UTF-8" })
    })?;
    // The scanner takes a NUL for the end of the file and would ignore what follows.
    let control = |b: &u8| *b < b' ' && !matches!(b, b'\t' | b'\n' | b'\r');
    if let Some(at) = bytes.iter().position(control) {
        let message = format!("control character 0x{:02x} in the file", bytes[at]);
        return Err(Flaw::new(place(at), message).hint("it is not a text file, or is damaged"));
    }
    Ok(text)
}

fn too_deep(limits: &Limits) -> String {
    format!("nested deeper than {} levels", limits.depth)
}

/// The byte offsets at which lines begin; a line ends with `\n`, `\r\n` or `\r`.
fn line_starts(text: &str) -> impl Iterator<Item = usize> {
    let bytes = text.as_bytes();
    let ends = bytes
        .iter()
        .enumerate()
        .filter(|(at, b)| **b == b'\n' || (**b == b'\r' && bytes.get(at + 1) != Some(&b'\n')));
    std::iter::once(0).chain(ends.map(|(at, _)| at + 1))
}

fn is_marker(rest: &str) -> bool {
    rest.strip_prefix("---").is_some_and(|r| r.is_empty() || r.starts_with([' ', '\t', '\n', '\r']))
}

fn documents(text: &str, limits: &Limits) -> Vec<Doc> {
    let mut out = Vec::new();
    let mut nodes = 0;
    let (mut rest, mut lines_before, mut errors) = (text, 0, 0);
    loop {
        let mut reader = Reader::new(rest, lines_before, limits, nodes, &mut out);
        let Err(stop) = reader.run() else { return out };
        let began = reader.began;
        nodes = reader.nodes;
        errors += 1;
        if stop == Stop::File || errors >= MAX_ERRORS {
            return out;
        }
        let Stop::Document { line } = stop else { return out };
        // The marker that ends the broken document may be the place of the error itself.
        let from = line.max(began + 1);
        let next = line_starts(rest)
            .enumerate()
            .skip(from.saturating_sub(1))
            .find(|(_, at)| rest.get(*at..).is_some_and(is_marker));
        let Some((index, at)) = next else { return out };
        rest = rest.get(at..).unwrap_or_default();
        lines_before += index;
    }
}

/// Why reading stopped.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    /// The document is lost; the line is counted from where the reader began.
    Document { line: usize },
    /// The file is not worth reading further.
    File,
}

/// A list or mapping under construction.
struct Frame {
    pos: Pos,
    anchor: usize,
    size: usize,
    kind: Open,
}

enum Open {
    List(Vec<Node>),
    Map { fields: Vec<Field>, keys: BTreeMap<String, Pos>, pending: Pending },
}

/// The key that waits for its value.
enum Pending {
    None,
    Key(String, Pos),
    /// A key that was refused; its value is read and dropped.
    Refused,
}

struct Reader<'a, 'o> {
    parser: Parser<'a, StrInput<'a>>,
    text: &'a str,
    /// The last character of `text` that does not end a line.
    last: Pos,
    lines_before: usize,
    limits: &'a Limits,
    /// Nodes of the whole file, expanded ones included.
    nodes: usize,
    /// The line in `text` at which the document under way began.
    began: usize,
    stack: Vec<Frame>,
    anchors: BTreeMap<usize, (Node, usize)>,
    root: Option<Node>,
    pos: Pos,
    flaws: Vec<Flaw>,
    out: &'o mut Vec<Doc>,
}

impl<'a, 'o> Reader<'a, 'o> {
    fn new(
        text: &'a str,
        lines_before: usize,
        limits: &'a Limits,
        nodes: usize,
        out: &'o mut Vec<Doc>,
    ) -> Self {
        let end = text.trim_end_matches(['\n', '\r']);
        let (last, start) = line_starts(end).enumerate().last().unwrap_or((0, 0));
        let columns = end.get(start..).unwrap_or_default().chars().count();
        Self {
            parser: Parser::new_from_str(text),
            text,
            last: Pos { line: last + 1, column: columns.max(1) },
            lines_before,
            limits,
            nodes,
            began: 1,
            stack: Vec::new(),
            anchors: BTreeMap::new(),
            root: None,
            pos: Pos { line: lines_before + 1, column: 1 },
            flaws: Vec::new(),
            out,
        }
    }

    fn run(&mut self) -> Result<(), Stop> {
        loop {
            match self.parser.next_event() {
                None => return Ok(()),
                Some(Ok((event, span))) => self.event(event, span)?,
                Some(Err(e)) => {
                    let pos = self.pos(*e.marker());
                    let line = e.marker().line();
                    let flaw = self.explain(pos, line, e.info());
                    return Err(self.lose(flaw, Stop::Document { line }));
                }
            }
        }
    }

    fn explain(&self, pos: Pos, line: usize, info: &str) -> Flaw {
        if info == "recursion limit exceeded" {
            return Flaw::new(pos, too_deep(self.limits));
        }
        let info: String = info.chars().take(300).flat_map(printable).collect();
        let flaw = Flaw::new(pos, format!("not valid YAML: {}", info.trim_end_matches('.')));
        let at = line_starts(self.text).nth(line.saturating_sub(1)).unwrap_or_default();
        let text = self.text.get(at..).and_then(|t| t.lines().next()).unwrap_or_default();
        let indent = &text[..text.len() - text.trim_start_matches([' ', '\t']).len()];
        if indent.contains('\t') {
            flaw.hint("indent with spaces: YAML takes no tabs there")
        } else if text.contains("{{") {
            flaw.hint(TEMPLATE)
        } else if self.text.starts_with("<<<<<<< ") || self.text.contains("\n<<<<<<< ") {
            flaw.hint("this looks like an unresolved merge conflict")
        } else {
            flaw
        }
    }

    /// The place of a mark; where the scanner points behind the end, the last character.
    fn pos(&self, mark: Marker) -> Pos {
        let place = Pos { line: mark.line(), column: mark.col() + 1 };
        let Pos { line, column } = if place.line > self.last.line { self.last } else { place };
        Pos { line: self.lines_before + line, column }
    }

    /// Gives up the document under way; what was read of it may still tell whose it is.
    fn lose(&mut self, flaw: Flaw, stop: Stop) -> Stop {
        while let Some(frame) = self.stack.pop() {
            let node = frame.close().0;
            match self.stack.last_mut() {
                Some(parent) => parent.push(node, 0),
                None => self.root = Some(node),
            }
        }
        self.flaws.push(flaw);
        self.finish(false);
        stop
    }

    fn finish(&mut self, complete: bool) {
        self.anchors.clear();
        self.out.push(Doc {
            pos: self.pos,
            root: self.root.take(),
            flaws: std::mem::take(&mut self.flaws),
            complete,
        });
    }

    fn event(&mut self, event: Event<'a>, span: Span) -> Result<(), Stop> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd => {}
            Event::DocumentStart(_) => {
                self.began = span.start.line();
                self.pos = self.pos(span.start);
                if self.out.len() >= self.limits.documents_per_file {
                    let most = self.limits.documents_per_file;
                    let flaw = Flaw::new(self.pos, format!("more than {most} documents in a file"));
                    return Err(self.lose(flaw.hint("split it into several files"), Stop::File));
                }
            }
            Event::DocumentEnd => self.finish(true),
            Event::Scalar(text, style, anchor, tag) => {
                let pos = self.pos(span.start);
                self.count(1, pos, false)?;
                let plain = self.scalar_style(style, tag.as_deref(), pos);
                let key = plain && text == "<<" && self.wants_key();
                let node = self.scalar(text, plain, pos);
                self.remember(anchor, &node, 1)?;
                if key {
                    let flaw = Flaw::new(pos, "merge keys (<<) are not supported");
                    self.flaw(
                        flaw.hint("write the fields out, or use an alias for one whole value"),
                    );
                    self.refuse_key();
                } else {
                    self.place(node, 1);
                }
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(anchor, tag.as_deref(), span, Open::List(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                let kind =
                    Open::Map { fields: Vec::new(), keys: BTreeMap::new(), pending: Pending::None };
                self.open(anchor, tag.as_deref(), span, kind)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(frame) = self.stack.pop() {
                    let anchor = frame.anchor;
                    let (node, size) = frame.close();
                    self.remember(anchor, &node, size)?;
                    self.place(node, size);
                }
            }
            Event::Alias(id) => {
                let pos = self.pos(span.start);
                let Some((node, size)) = self.anchors.get(&id).cloned() else {
                    let flaw =
                        Flaw::new(pos, "an alias of something that is not complete before it");
                    let line = span.start.line();
                    return Err(self.lose(flaw, Stop::Document { line }));
                };
                self.count(size, pos, true)?;
                self.place(node, size);
            }
        }
        Ok(())
    }

    fn open(
        &mut self,
        anchor: usize,
        tag: Option<&Tag>,
        span: Span,
        kind: Open,
    ) -> Result<(), Stop> {
        let pos = self.pos(span.start);
        self.count(1, pos, false)?;
        let core = match kind {
            Open::List(_) => "seq",
            Open::Map { .. } => "map",
        };
        if let Some(tag) = tag.filter(|t| !(t.is_yaml_core_schema() && t.suffix == core)) {
            self.refuse_tag(tag, pos);
        }
        if self.stack.len() >= self.limits.depth {
            let (flaw, line) = (Flaw::new(pos, too_deep(self.limits)), span.start.line());
            return Err(self.lose(flaw, Stop::Document { line }));
        }
        self.stack.push(Frame { pos, anchor, size: 1, kind });
        Ok(())
    }

    /// Counts values, so that no file and no alias can make more of them than a machine has room for.
    fn count(&mut self, more: usize, pos: Pos, alias: bool) -> Result<(), Stop> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes <= self.limits.nodes {
            return Ok(());
        }
        let most = self.limits.nodes;
        let flaw = if alias {
            Flaw::new(pos, format!("aliases make more than {most} values of this file"))
        } else {
            Flaw::new(pos, format!("more than {most} values in a file"))
                .hint("split it into several files")
        };
        Err(self.lose(flaw, Stop::File))
    }

    fn remember(&mut self, anchor: usize, node: &Node, size: usize) -> Result<(), Stop> {
        if anchor > 0 {
            self.count(size, node.pos, true)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(())
    }

    /// Keeps a flaw, unless there are already more than anyone reads.
    fn flaw(&mut self, flaw: Flaw) {
        if self.flaws.len() < MAX_FLAWS {
            self.flaws.push(flaw);
        }
    }

    fn refuse_tag(&mut self, tag: &Tag, pos: Pos) {
        let name = if tag.is_yaml_core_schema() {
            format!("!!{}", tag.suffix)
        } else {
            format!("{}{}", tag.handle, tag.suffix)
        };
        let flaw = Flaw::new(pos, format!("the tag {} is not supported", quoted(&name)));
        self.flaw(flaw.hint("leave the tag out; quote a value to make it text"));
    }

    /// Whether the core schema decides what the scalar is; otherwise it is text.
    fn scalar_style(&mut self, style: ScalarStyle, tag: Option<&Tag>, pos: Pos) -> bool {
        match tag {
            None => style == ScalarStyle::Plain,
            Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => false,
            Some(tag) => {
                self.refuse_tag(tag, pos);
                false
            }
        }
    }

    fn scalar(&mut self, text: Cow<'_, str>, plain: bool, pos: Pos) -> Node {
        if text.len() > self.limits.scalar_bytes {
            let most = self.limits.scalar_bytes;
            self.flaw(Flaw::new(
                pos,
                format!("a text of {} bytes, and {most} are the most", text.len()),
            ));
            return Node { pos, value: Value::Text(String::new()) };
        }
        if text.contains('\0') {
            self.flaw(Flaw::new(pos, "a text may not hold the character NUL"));
        }
        let value = if plain { resolve(&text) } else { None };
        Node { pos, value: value.unwrap_or_else(|| Value::Text(text.into_owned())) }
    }

    fn wants_key(&self) -> bool {
        matches!(
            self.stack.last(),
            Some(Frame { kind: Open::Map { pending: Pending::None, .. }, .. })
        )
    }

    fn refuse_key(&mut self) {
        if let Some(Frame { kind: Open::Map { pending, .. }, .. }) = self.stack.last_mut() {
            *pending = Pending::Refused;
        }
    }

    /// Puts a finished value where it belongs: into the list, as a key, after a key, or at the top.
    fn place(&mut self, node: Node, size: usize) {
        if self.wants_key() {
            self.key(node);
        } else if let Some(parent) = self.stack.last_mut() {
            parent.push(node, size);
        } else {
            self.root = Some(node);
        }
    }

    fn key(&mut self, node: Node) {
        let pos = node.pos;
        let key = match node.value {
            Value::Text(key) => key,
            Value::Bool(_, text) | Value::Number(_, text) => {
                let flaw = Flaw::new(pos, format!("the key {} is not text", shown(&text)));
                self.flaw(flaw.hint(format!("quote it: \"{}\"", shown(&text))));
                text
            }
            Value::Map(_) => {
                self.flaw(Flaw::new(pos, "a key must be text").hint(TEMPLATE));
                self.refuse_key();
                return;
            }
            Value::Null | Value::List(_) => {
                let flaw = Flaw::new(pos, "a key must be text");
                self.flaw(flaw.hint("quote it"));
                self.refuse_key();
                return;
            }
        };
        let Some(Frame { kind: Open::Map { keys, pending, .. }, .. }) = self.stack.last_mut()
        else {
            return;
        };
        let first = match keys.entry(key.clone()) {
            Entry::Vacant(free) => {
                free.insert(pos);
                *pending = Pending::Key(key, pos);
                return;
            }
            Entry::Occupied(first) => *first.get(),
        };
        *pending = Pending::Refused;
        let message = format!(
            "the key {} is given twice: first at line {}, column {}",
            quoted(&key),
            first.line,
            first.column
        );
        self.flaw(Flaw::new(pos, message));
    }
}

impl Frame {
    fn close(self) -> (Node, usize) {
        let value = match self.kind {
            Open::List(items) => Value::List(items),
            Open::Map { fields, .. } => Value::Map(fields),
        };
        (Node { pos: self.pos, value }, self.size)
    }

    fn push(&mut self, mut node: Node, size: usize) {
        self.size = self.size.saturating_add(size);
        match &mut self.kind {
            Open::List(items) => items.push(node),
            Open::Map { fields, pending, .. } => {
                if let Pending::Key(key, pos) = std::mem::replace(pending, Pending::None) {
                    // An empty value has no place of its own.
                    if matches!(node.value, Value::Null) {
                        node.pos = pos;
                    }
                    self.size = self.size.saturating_add(1);
                    fields.push(Field { key, pos, value: node });
                }
            }
        }
    }
}

/// What a plain scalar is by the core schema; `None` is text. Infinities and NaN, which no field
/// takes, are left as text.
fn resolve(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "true" | "True" | "TRUE" => return Some(Value::Bool(true, text.to_owned())),
        "false" | "False" | "FALSE" => return Some(Value::Bool(false, text.to_owned())),
        _ => {}
    }
    number(text).map(|n| Value::Number(n, text.to_owned()))
}

fn number(text: &str) -> Option<Number> {
    let radix = |digits: &str, radix| {
        let fits = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
        fits.then(|| u64::from_str_radix(digits, radix).ok().map(Number::from))
    };
    if let Some(octal) = text.strip_prefix("0o").and_then(|d| radix(d, 8)) {
        return octal;
    }
    if let Some(hex) = text.strip_prefix("0x").and_then(|d| radix(d, 16)) {
        return hex;
    }
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (digits, None),
    };
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent_fits = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['+', '-']).unwrap_or(e);
        !e.is_empty() && all_digits(e)
    });
    let some = !(whole.is_empty() && fraction.is_empty());
    if !(some && exponent_fits && all_digits(whole) && all_digits(fraction)) {
        return None;
    }
    if exponent.is_none() && !mantissa.contains('.') {
        let whole = if negative {
            text.parse::<i64>().ok().map(Number::from)
        } else {
            digits.parse::<u64>().ok().map(Number::from)
        };
        if whole.is_some() {
            return whole;
        }
    }
    // Larger than any field takes; what remains to be said is that it is a number.
    let float: f64 = text.parse().ok()?;
    Number::from_f64(float).or_else(|| Number::from_f64(if negative { f64::MIN } else { f64::MAX }))
}
