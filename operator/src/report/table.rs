//! Tables that fit the terminal: the least important columns give way first.
//!
//! Small enough to be our own: what is needed beyond padding is knowing which text may be cut where
//! (an image keeps its tag, a sentence its beginning), which no table library knows.

use std::fmt::Write;

use super::redact::clean;

/// How a cell looks where colour is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tint {
    /// As it is.
    #[default]
    Plain,
    /// Emphasis.
    Bold,
    /// Less important.
    Dim,
    /// Good.
    Green,
    /// On the way.
    Yellow,
    /// Bad.
    Red,
    /// Neutral information.
    Cyan,
}

impl Tint {
    /// The text in this tint, if colour is wanted.
    pub fn paint(self, text: &str, colour: bool) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Bold => 1,
            Self::Dim => 2,
            Self::Green => 32,
            Self::Yellow => 33,
            Self::Red => 31,
            Self::Cyan => 36,
        };
        if colour && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// What a column does when there is not enough room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Never cut.
    Whole,
    /// Cut at the end down to this width.
    End(usize),
    /// Cut at the beginning down to this width: the end says most.
    Start(usize),
}

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its header.
    pub title: &'static str,
    /// Whether numbers stand in it.
    pub right: bool,
    /// What it does when there is not enough room.
    pub fit: Fit,
    /// The highest is left out first when cutting does not help; 0 is never left out.
    pub spare: u8,
}

impl Column {
    /// A column of text that is never cut or left out.
    pub const fn text(title: &'static str) -> Self {
        Self { title, right: false, fit: Fit::Whole, spare: 0 }
    }

    /// A column of numbers.
    pub const fn number(title: &'static str) -> Self {
        Self { title, right: true, fit: Fit::Whole, spare: 0 }
    }

    /// May be cut.
    #[must_use]
    pub const fn fit(mut self, fit: Fit) -> Self {
        self.fit = fit;
        self
    }

    /// May be left out, the highest first.
    #[must_use]
    pub const fn spare(mut self, spare: u8) -> Self {
        self.spare = spare;
        self
    }
}

/// One cell.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    text: String,
    tint: Tint,
}

impl Cell {
    /// A cell with a tint.
    pub fn tinted(text: impl Into<String>, tint: Tint) -> Self {
        Self { text: clean(&text.into()), tint }
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::tinted(text.to_string(), Tint::Plain)
    }
}

/// Rows under columns.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
    indent: usize,
}

/// Between two columns.
const GAP: usize = 2;

impl Table {
    /// An empty table.
    pub fn new(columns: &[Column], indent: usize) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new(), indent }
    }

    /// Adds a row; cells that are missing are empty.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as lines, each ended by a line break, none with trailing blanks. A row may be
    /// wider than `width` only when nothing is left to cut.
    pub fn render(&self, width: usize, colour: bool) -> String {
        let (shown, widths) = self.layout(width);
        let mut out = String::new();
        let header: Vec<Cell> = self
            .columns
            .iter()
            .map(|c| Cell { text: c.title.to_owned(), tint: Tint::Dim })
            .collect();
        for row in std::iter::once(&header).chain(&self.rows) {
            let mut line = " ".repeat(self.indent);
            let mut blanks = 0;
            for (place, &i) in shown.iter().enumerate() {
                let column = self.columns[i];
                let empty = Cell::default();
                let cell = row.get(i).unwrap_or(&empty);
                let text = cut(&cell.text, widths[i], column.fit);
                let pad = widths[i].saturating_sub(len(&text));
                let before = if column.right { pad } else { 0 };
                let gap = if place == 0 { 0 } else { GAP };
                if text.is_empty() {
                    blanks += gap + pad;
                } else {
                    let _ = write!(line, "{:1$}", "", blanks + gap + before);
                    line.push_str(&cell.tint.paint(&text, colour));
                    blanks = pad - before;
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    /// Which columns are shown, and how wide each is.
    fn layout(&self, width: usize) -> (Vec<usize>, Vec<usize>) {
        let natural: Vec<usize> = (0..self.columns.len())
            .map(|i| {
                let cells = self.rows.iter().filter_map(|r| r.get(i)).map(|c| len(&c.text)).max();
                cells.unwrap_or(0).max(len(self.columns[i].title))
            })
            .collect();
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        loop {
            let mut widths = natural.clone();
            let total = |w: &[usize]| {
                let gaps = GAP * shown.len().saturating_sub(1);
                self.indent + gaps + shown.iter().map(|i| w[*i]).sum::<usize>()
            };
            // The widest of those that may be cut gives way first.
            while total(&widths) > width {
                let over = total(&widths) - width;
                let widest = shown
                    .iter()
                    .copied()
                    .filter(|i| widths[*i] > self.least(*i))
                    .max_by_key(|i| widths[*i]);
                let Some(i) = widest else { break };
                widths[i] -= over.min(widths[i] - self.least(i)).clamp(1, 8.max(over / 4));
            }
            let spare = shown
                .iter()
                .copied()
                .filter(|i| self.columns[*i].spare > 0)
                .max_by_key(|i| self.columns[*i].spare);
            match spare {
                Some(i) if total(&widths) > width => shown.retain(|s| *s != i),
                _ => return (shown, widths),
            }
        }
    }

    fn least(&self, i: usize) -> usize {
        let column = self.columns[i];
        match column.fit {
            Fit::Whole => usize::MAX,
            Fit::End(n) | Fit::Start(n) => n.max(len(column.title)).max(1),
        }
    }
}

fn len(text: &str) -> usize {
    text.chars().count()
}

fn cut(text: &str, width: usize, fit: Fit) -> String {
    let n = len(text);
    if n <= width || fit == Fit::Whole {
        return text.to_owned();
    }
    let keep = width.saturating_sub(1);
    match fit {
        Fit::Start(_) => format!("…{}", text.chars().skip(n - keep).collect::<String>()),
        Fit::Whole | Fit::End(_) => {
            let head: String = text.chars().take(keep).collect();
            format!("{}…", head.trim_end())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Table {
        let mut t = Table::new(
            &[
                Column::text("NAME"),
                Column::number("READY"),
                Column::text("IMAGE").fit(Fit::Start(8)).spare(1),
                Column::text("STATUS").fit(Fit::End(6)),
            ],
            0,
        );
        t.row(vec![
            "web".into(),
            10.into(),
            "registry.example:5000/web:1.4.2".into(),
            "reconciling: 2 new not available yet".into(),
        ]);
        t.row(vec!["a-long-name".into(), 3.into(), "redis:7".into(), "ready".into()]);
        t
    }

    #[test]
    fn wide_narrow_and_very_narrow() {
        insta::assert_snapshot!(sample().render(120, false), @r#"
        NAME         READY  IMAGE                            STATUS
        web             10  registry.example:5000/web:1.4.2  reconciling: 2 new not available yet
        a-long-name      3  redis:7                          ready
        "#);
        insta::assert_snapshot!(sample().render(60, false), @r#"
        NAME         READY  IMAGE               STATUS
        web             10  …le:5000/web:1.4.2  reconciling: 2 new…
        a-long-name      3  redis:7             ready
        "#);
        insta::assert_snapshot!(sample().render(30, false), @r#"
        NAME         READY  STATUS
        web             10  reconcili…
        a-long-name      3  ready
        "#);
    }

    #[test]
    fn escape_sequences_from_outside_do_not_reach_the_terminal() {
        let mut t = Table::new(&[Column::text("NAME")], 0);
        t.row(vec!["\x1b[2Jgone\r\n".into()]);
        assert!(!t.render(80, false).contains('\x1b'));
        assert_eq!(t.render(80, false).lines().count(), 2);
    }

    proptest! {
        #[test]
        fn any_text_at_any_width_renders_and_fits_when_it_can(
            cells in prop::collection::vec((".{0,80}", ".{0,200}", any::<u32>()), 0..12),
            width in 0usize..300, colour: bool, indent in 0usize..6,
        ) {
            let mut t = Table::new(&[
                Column::text("A").fit(Fit::Start(1)), Column::text("B").fit(Fit::End(4)).spare(2),
                Column::number("N").spare(1),
            ], indent);
            for (a, b, n) in &cells {
                t.row(vec![a.into(), Cell::tinted(b, Tint::Red), n.into()]);
            }
            let text = t.render(width, colour);
            prop_assert_eq!(text.lines().count(), cells.len() + 1);
            if !colour {
                let least = indent + 1;
                prop_assert!(text.lines().all(|l| l.chars().count() <= width.max(least)));
            }
        }
    }
}
