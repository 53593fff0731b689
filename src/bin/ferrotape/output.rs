//! What a command prints: lines, tables, JSON; nothing until the command is done.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};

use ferrotape::numbers::decimals;
use serde_json::Value;

/// The text for stdout.
#[derive(Default)]
pub(crate) struct Output(String);

impl Output {
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// One line. What a file contains must not control the terminal, so control characters are
    /// shown as escapes.
    pub(crate) fn line(&mut self, text: impl Display) {
        self.0.push_str(&printable(&text.to_string()));
        self.0.push('\n');
    }

    /// Text of this program's own, with its line breaks.
    pub(crate) fn block(&mut self, text: &str) {
        self.0.push_str(text);
    }

    /// A JSON document, indented.
    pub(crate) fn json(&mut self, value: &Value) {
        let _ = writeln!(self.0, "{value:#}"); // a String does not refuse
    }
}

/// A text without control characters.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let keep = |c: char| !c.is_control() || c == '\n';
    if text.chars().all(keep) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| if keep(c) { c.to_string() } else { c.escape_default().to_string() };
    Cow::Owned(text.chars().map(escape).collect())
}

/// Rows of cells under headings, in columns as wide as their widest cell.
pub(crate) struct Table {
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A column whose heading begins with `>` is aligned to the right, as numbers should be.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let right = headings.iter().map(|heading| heading.starts_with('>')).collect();
        let row = headings.iter().map(|heading| heading.trim_start_matches('>').to_owned());
        Table { right, rows: vec![row.collect()] }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        // Escaped here, so that the widths are those of what is printed.
        self.rows.push(cells.into_iter().map(|cell| printable(&cell).into_owned()).collect());
    }

    pub(crate) fn print(&self, out: &mut Output) {
        let width = |column: usize| {
            self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).zip(&self.right);
            let cells: Vec<String> = cells
                .map(|((cell, &width), right)| match right {
                    true => format!("{cell:>width$}"),
                    false => format!("{cell:<width$}"),
                })
                .collect();
            out.line(cells.join("  ").trim_end());
        }
    }
}

/// A measurement.
pub(crate) fn number(x: f64) -> String {
    decimals(x, 6)
}

/// What there may be, or a dash.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// The name of a variant of an enumeration, as printed.
pub(crate) fn lower(value: impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}
