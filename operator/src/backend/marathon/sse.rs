//! Server-sent events from bytes: pure. Lines end with CR LF, CR or LF; a heartbeat is an empty line; a line has an end.

use bytes::Bytes;

/// The longest event that is kept. Versions before 1.7 send the whole tree of apps with a deployment.
const LONGEST: usize = 1 << 20;

/// What has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Came {
    /// An event: its type, and its data, which is one or several JSON objects.
    Event(String, String),
    /// An event that was too long to be kept.
    TooLong,
    /// A line that shows that somebody is there.
    Sign,
}

/// Takes bytes as they come.
#[derive(Debug, Default)]
pub(super) struct Lines {
    line: Vec<u8>,
    /// The line is longer than any that is kept; the rest of it is passed over.
    overflow: bool,
    after_cr: bool,
    kind: String,
    data: String,
    too_long: bool,
}

impl Lines {
    /// Takes the next bytes.
    pub(super) fn feed(&mut self, bytes: &Bytes) -> Vec<Came> {
        let mut came = Vec::new();
        for byte in bytes {
            let after_cr = std::mem::take(&mut self.after_cr);
            match byte {
                b'\n' if after_cr => {}
                b'\r' | b'\n' => {
                    self.after_cr = *byte == b'\r';
                    self.end_line(&mut came);
                }
                _ if self.line.len() < LONGEST => self.line.push(*byte),
                _ => self.overflow = true,
            }
        }
        came
    }

    fn end_line(&mut self, came: &mut Vec<Came>) {
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.overflow) {
            self.too_long = true;
            return;
        }
        let line = String::from_utf8_lossy(&line);
        if line.is_empty() {
            let (kind, data) = (std::mem::take(&mut self.kind), std::mem::take(&mut self.data));
            came.push(if std::mem::take(&mut self.too_long) {
                Came::TooLong
            } else if data.is_empty() {
                Came::Sign
            } else {
                Came::Event(kind, data)
            });
            return;
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => value.clone_into(&mut self.kind),
            "data" => self.add(value),
            // Some versions send several objects in one event, one a line.
            _ if line.starts_with('{') => self.add(&line),
            _ => {}
        }
    }

    fn add(&mut self, data: &str) {
        if self.data.len() + data.len() > LONGEST {
            self.too_long = true;
            return;
        }
        if !self.data.is_empty() {
            self.data.push('\n');
        }
        self.data.push_str(data);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn feed(text: &[u8]) -> Vec<Came> {
        Lines::default().feed(&Bytes::copy_from_slice(text))
    }

    fn event(kind: &str, data: &str) -> Came {
        Came::Event(kind.into(), data.into())
    }

    #[test]
    fn events_come_whole_whatever_ends_their_lines() {
        for end in ["\r\n", "\n", "\r"] {
            let text = format!("event: a{end}data: {{}}{end}{end}event:b{end}data:x{end}{end}");
            assert_eq!(feed(text.as_bytes()), [event("a", "{}"), event("b", "x")], "{end:?}");
        }
        assert_eq!(feed(b"event: a\r\ndata: {}\r\n"), [], "it has not ended");
    }

    #[test]
    fn a_heartbeat_is_a_sign_of_life() {
        assert_eq!(feed(b"\r\n"), [Came::Sign]);
        let mut lines = Lines::default();
        assert_eq!(lines.feed(&Bytes::from_static(b"\r")), [Came::Sign]);
        assert_eq!(lines.feed(&Bytes::from_static(b"\n")), [], "one line end, in two pieces");
    }

    #[test]
    fn several_objects_in_one_event_are_all_there() {
        assert_eq!(
            feed(b"event: a\r\ndata: {\"x\":1}\r\n{\"x\":2}\r\n\r\n"),
            [event("a", "{\"x\":1}\n{\"x\":2}")]
        );
    }

    #[test]
    fn what_is_too_long_is_said_and_not_kept() {
        let mut lines = Lines::default();
        let part = Bytes::from(vec![b'x'; 64 << 10]);
        lines.feed(&Bytes::from_static(b"event: a\ndata: "));
        for _ in 0..100 {
            assert_eq!(lines.feed(&part), []);
            assert!(lines.line.len() <= LONGEST);
        }
        assert_eq!(
            lines.feed(&Bytes::from_static(b"\n\ndata: y\n\n")),
            [Came::TooLong, event("", "y")]
        );
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_pieces_bytes_come(
            text in "(event: a|data: \\{\\}|x|\r\n|\n|\r){0,20}", cut in 0_usize..100,
        ) {
            let bytes = text.as_bytes();
            let (a, b) = bytes.split_at(cut.min(bytes.len()));
            let mut lines = Lines::default();
            let mut came = lines.feed(&Bytes::copy_from_slice(a));
            came.extend(lines.feed(&Bytes::copy_from_slice(b)));
            prop_assert_eq!(came, feed(bytes));
        }
    }
}
