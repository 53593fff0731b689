//! What all parts of the page need: escaped text, tables.

use std::fmt::{Display, Write as _};

use crate::numbers::setting;

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

/// A table. Columns whose heading begins with `>` are aligned to the right, as numbers should be;
/// those that begin with `-` are left out on a phone, those with `->` are both. Cells are HTML.
pub(super) struct Table {
    html: String,
    /// The classes of the columns, as an attribute.
    classes: Vec<&'static str>,
}

impl Table {
    /// A table with these headings, read out as `caption` to those who do not see it.
    pub(super) fn new(caption: &str, headings: &[&str]) -> Self {
        let class = |heading: &&str| match (heading.starts_with('-'), heading.contains('>')) {
            (false, false) => "",
            (false, true) => " class=\"n\"",
            (true, false) => " class=\"extra\"",
            (true, true) => " class=\"extra n\"",
        };
        let classes: Vec<&str> = headings.iter().map(class).collect();
        let mut html = format!(
            "<div class=\"wide\"><table><caption class=\"unseen\">{}</caption><thead><tr>",
            escape(caption)
        );
        for (heading, class) in headings.iter().zip(&classes) {
            let text = escape(heading.trim_start_matches(['-', '>']));
            let _ = write!(html, "<th scope=\"col\"{class}>{text}</th>");
        }
        html.push_str("</tr></thead><tbody>\n");
        Table { html, classes }
    }

    /// Adds a row, of the given class if that is not empty.
    pub(super) fn row(&mut self, class: &str, cells: impl IntoIterator<Item = String>) {
        let class = if class.is_empty() { "" } else { &format!(" class=\"{class}\"") };
        let _ = write!(self.html, "<tr{class}>");
        for (cell, class) in cells.into_iter().zip(&self.classes) {
            let _ = write!(self.html, "<td{class}>{cell}</td>");
        }
        self.html.push_str("</tr>\n");
    }

    pub(super) fn finish(self) -> String {
        self.html + "</tbody></table></div>\n"
    }
}

/// A setting without the digits that an `f32` never had: `lr=0.029999999329447746` is `lr=0.03`.
pub(super) fn tidy(text: &str) -> String {
    let mut tidied = String::new();
    for part in text.split_inclusive(['=', ',', ' ', '(', ')']) {
        let number = part.trim_end_matches(['=', ',', ' ', '(', ')']);
        match number.parse::<f64>() {
            Ok(value) if number.len() > 9 && f64::from(value as f32) == value => {
                let _ = write!(tidied, "{}{}", setting(value), &part[number.len()..]);
            }
            _ => tidied.push_str(part),
        }
    }
    tidied
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
    fn texts_for_people() {
        assert_eq!(
            tidy("sgd(lr=0.029999999329447746, momentum=0.5)"),
            "sgd(lr=0.03, momentum=0.5)"
        );
        assert_eq!(tidy("2103ef1a3dac2b5a 1234567890123"), "2103ef1a3dac2b5a 1234567890123");
        assert_eq!(shortened("aeroplane", 5), "aero…");
        assert_eq!(shortened("plane", 5), "plane");
    }
}
