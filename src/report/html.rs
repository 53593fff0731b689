//! What all parts of the page need: escaped text, numbers for people, tables.

use std::fmt::{Display, Write as _};

/// Text in which no character means anything to HTML, also inside of an attribute. Characters
/// that a page may not contain at all become U+FFFD.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() && !c.is_whitespace() => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// At most `limit` characters of a text, the last one an ellipsis if some are missing.
pub(super) fn shortened(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit - 1).chain(['…']).collect()
}

/// A whole number with its thousands apart: `61 706`, by narrow spaces that do not break.
pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) && digits.len() > 4 {
            text.push('\u{202f}');
        }
        text.push(c);
    }
    text
}

/// A time in the two units that matter.
pub(super) fn duration(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        _ if seconds < 10.0 => format!("{seconds:.1} s"),
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

/// A number of bytes.
pub(super) fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..10_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        _ => format!("{:.1} MB", n as f64 / 1e6),
    }
}

/// A table. Columns whose heading begins with `>` are aligned to the right, as numbers should be.
/// Cells are HTML.
pub(super) struct Table {
    html: String,
    right: Vec<bool>,
}

impl Table {
    /// A table with these headings, read out as `caption` to those who do not see it.
    pub(super) fn new(caption: &str, headings: &[&str]) -> Self {
        let right: Vec<bool> = headings.iter().map(|heading| heading.starts_with('>')).collect();
        let mut html = format!(
            "<div class=\"wide\"><table><caption class=\"unseen\">{}</caption><thead><tr>",
            escape(caption)
        );
        for heading in headings {
            let class = if heading.starts_with('>') { " class=\"n\"" } else { "" };
            let text = escape(heading.trim_start_matches('>'));
            let _ = write!(html, "<th scope=\"col\"{class}>{text}</th>");
        }
        html.push_str("</tr></thead><tbody>\n");
        Table { html, right }
    }

    /// Adds a row, of the given class if that is not empty.
    pub(super) fn row(&mut self, class: &str, cells: impl IntoIterator<Item = String>) {
        let class = if class.is_empty() { "" } else { &format!(" class=\"{class}\"") };
        let _ = write!(self.html, "<tr{class}>");
        for (cell, &right) in cells.into_iter().zip(&self.right) {
            let class = if right { " class=\"n\"" } else { "" };
            let _ = write!(self.html, "<td{class}>{cell}</td>");
        }
        self.html.push_str("</tr>\n");
    }

    pub(super) fn finish(self) -> String {
        self.html + "</tbody></table></div>\n"
    }
}

/// What there may be, or a dash.
pub(super) fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_means_anything() {
        let text = escape("<a b=\"c\" d='e'>&\u{0}\u{1b}[1m\n");
        assert_eq!(text, "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;\u{fffd}\u{fffd}[1m\n");
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1234, 61706].map(grouped), ["0", "999", "1234", "61\u{202f}706"]);
        assert_eq!(grouped(12_345_678), "12\u{202f}345\u{202f}678");
        assert_eq!(
            [0.04, 59.4, 61.0, 7290.0].map(duration),
            ["0.0 s", "59 s", "1 min 01 s", "2 h 01 min"]
        );
        assert_eq!([12, 12_340, 12_340_000].map(bytes), ["12 B", "12.3 kB", "12.3 MB"]);
        assert_eq!(shortened("aeroplane", 5), "aero…");
        assert_eq!(shortened("plane", 5), "plane");
    }
}
