//! A configuration file whose every piece knows where it is written, so that every complaint can
//! point at it.
//!
//! ```text
//! run.toml:12:1: unknown key `learning_rate` in [optimizer]: did you mean `lr`?
//!    |
//! 12 | learning_rate = 0.05
//!    | ^^^^^^^^^^^^^
//! ```
//!
//! Reading goes in two steps, as a reader of the file would: a [`Table`] is opened with the keys it
//! may have, which finds the misspelt ones; then each [`Value`] is taken by its key and says what
//! it had expected.

use std::fmt::Display;
use std::ops::Range;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, Result};
use crate::names;

/// The bytes of the file in which something is written.
pub(super) type Place = Range<usize>;

/// The longest part of a line that a message shows, in characters.
const SHOWN: usize = 90;

/// A file's text, and what it is called.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) name: String,
    pub(super) text: String,
}

impl Document {
    /// The error that something at `place` is wrong.
    pub(super) fn error(&self, place: &Place, message: impl Display) -> Error {
        let before = &self.text[..self.boundary(place.start)];
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let row = before.matches('\n').count() + 1;
        let column = self.text[start..before.len()].chars().count() + 1;
        let line = self.text[start..].lines().next().unwrap_or_default();
        let marked = &self.text[before.len()..self.boundary(place.end).max(before.len())];
        let marked = marked.lines().next().unwrap_or_default().chars().count();

        // Of a long line, the part around the place.
        let skip = if column > SHOWN { column - SHOWN / 2 } else { 0 };
        let visible = |c: char| if c.is_control() { ' ' } else { c };
        let shown: String = line.chars().skip(skip).take(SHOWN).map(visible).collect();
        let carets = "^".repeat(marked.clamp(1, SHOWN - (column - 1 - skip).min(SHOWN - 1)));
        let indent = " ".repeat(column - 1 - skip);
        let margin = " ".repeat(row.to_string().len());
        let reason = format!("{message}\n{margin} |\n{row} | {shown}\n{margin} | {indent}{carets}");
        Error::config(format!("{}:{row}:{column}", self.name), reason)
    }

    fn boundary(&self, at: usize) -> usize {
        let at = at.min(self.text.len());
        (0..=at).rev().find(|&at| self.text.is_char_boundary(at)).unwrap_or(0)
    }

    /// What is written at `place`, for a message: its first line, shortened.
    fn excerpt(&self, place: &Place) -> String {
        let text = &self.text[self.boundary(place.start)..self.boundary(place.end)];
        let line = text.lines().next().unwrap_or_default();
        let short: String = line.chars().take(40).collect();
        if short.len() < text.len() { format!("{short}...") } else { short }
    }
}

/// The text of an unknown name, with the known one it may have been meant to be.
pub(super) fn did_you_mean(name: &str, known: &[&str]) -> String {
    match names::did_you_mean(name, known) {
        Some(meant) => format!(": {meant}"),
        None => format!("; expected one of {}", known.join(", ")),
    }
}

/// A table whose keys are all known.
pub(super) struct Table<'d> {
    document: &'d Document,
    /// What messages call it: "[optimizer]".
    name: String,
    /// Its heading.
    place: Place,
    entries: &'d DeTable<'d>,
}

impl<'d> Table<'d> {
    /// The file as a whole.
    pub(super) fn root(document: &'d Document, entries: &'d DeTable<'d>) -> Self {
        Table { document, name: "the file".into(), place: 0..0, entries }
    }

    /// The table itself, if it has no other keys than these.
    pub(super) fn only(self, known: &[&str]) -> Result<Self> {
        let unknown = self.entries.keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
        match unknown.min_by_key(|key| key.span().start) {
            None => Ok(self),
            Some(key) => {
                let hint = did_you_mean(key.get_ref(), known);
                let message = format!("unknown key `{}` in {}{hint}", key.get_ref(), self.name);
                Err(self.document.error(&key.span(), message))
            }
        }
    }

    /// The keys and where they are, in the order in which they are written.
    pub(super) fn keys(&self) -> Vec<(&'d str, Place)> {
        let mut keys: Vec<(&str, Place)> =
            self.entries.keys().map(|key| (key.get_ref().as_ref(), key.span())).collect();
        keys.sort_by_key(|(_, place)| place.start);
        keys
    }

    /// What `key` is set to.
    pub(super) fn get(&self, key: &str) -> Option<Value<'d>> {
        let value = self.entries.get(key)?;
        Some(Value { document: self.document, key: key.to_owned(), value })
    }

    /// What `key` is set to, or an error that says `what` it should be.
    pub(super) fn need(&self, key: &str, what: &str) -> Result<Value<'d>> {
        self.get(key)
            .ok_or_else(|| self.error(format!("{} has no `{key}`; expected {what}", self.name)))
    }

    /// An error about the table as a whole.
    pub(super) fn error(&self, message: impl Display) -> Error {
        self.document.error(&self.place, message)
    }
}

/// What a key is set to.
#[derive(Clone)]
pub(super) struct Value<'d> {
    document: &'d Document,
    key: String,
    value: &'d Spanned<DeValue<'d>>,
}

impl<'d> Value<'d> {
    pub(super) fn place(&self) -> Place {
        self.value.span()
    }

    /// An error about this value.
    pub(super) fn error(&self, message: impl Display) -> Error {
        self.document.error(&self.place(), message)
    }

    /// The error that this value is not what was expected.
    pub(super) fn expected(&self, what: &str) -> Error {
        let found = self.document.excerpt(&self.place());
        self.error(format!("`{}`: expected {what}, found {found}", self.key))
    }

    /// A fault of a text in a language of its own, such as a rule: points into the text if the
    /// reason begins with a column.
    pub(super) fn fault_within(&self, reason: &str) -> Error {
        let column = reason.strip_prefix("column ").and_then(|rest| rest.split_once(": "));
        let column = column.and_then(|(column, rest)| Some((column.parse::<usize>().ok()?, rest)));
        let place = self.place();
        let written = &self.document.text[place.clone()];
        let text = self.value.get_ref().as_str().unwrap_or_default();
        match column {
            // Between simple quotes each character of the text is written as itself.
            Some((column, rest)) if written.len() == text.len() + 2 => {
                let skipped = text.chars().take(column - 1).map(char::len_utf8).sum::<usize>();
                let at = place.start + 1 + skipped;
                self.document.error(&(at..at + 1), rest)
            }
            _ => self.error(reason),
        }
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }

    pub(super) fn string(&self, what: &str) -> Result<&'d str> {
        self.value.get_ref().as_str().ok_or_else(|| self.expected(what))
    }

    pub(super) fn boolean(&self) -> Result<bool> {
        self.value.get_ref().as_bool().ok_or_else(|| self.expected("true or false"))
    }

    /// One of some words.
    pub(super) fn word(&self, words: &[&'static str]) -> Result<&'static str> {
        let text = self.string(&format!("one of \"{}\"", words.join("\", \"")))?;
        let found = words.iter().find(|word| **word == text);
        found.copied().ok_or_else(|| {
            let hint = did_you_mean(text, words);
            self.error(format!("`{}`: unknown value \"{text}\"{hint}", self.key))
        })
    }

    /// What one of some words stands for.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Result<T> {
        let words: Vec<&str> = choices.iter().map(|&(word, _)| word).collect();
        let word = self.word(&words)?;
        Ok(choices.iter().find(|choice| choice.0 == word).expect("one of them").1)
    }

    /// A whole number in a range.
    pub(super) fn whole<T: TryFrom<u64>>(&self, range: Range<u64>) -> Result<T> {
        let what = match range.end {
            u64::MAX => format!("a whole number, at least {}", range.start),
            end => format!("a whole number from {} to {}", range.start, end - 1),
        };
        let number = self.value.get_ref().as_integer();
        let number = number.and_then(|n| u64::from_str_radix(n.as_str(), n.radix()).ok());
        let number = number.filter(|number| range.contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| self.expected(&what))
    }

    /// A number, `what` it should be, and whether it is that.
    pub(super) fn number<T: FromStr + Copy + Into<f64>>(
        &self,
        what: &str,
        accept: impl Fn(f64) -> bool,
    ) -> Result<T> {
        // Read from its text: rounded once, to the type it has.
        let text = match self.value.get_ref() {
            DeValue::Float(number) => Some(number.as_str()),
            DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str()),
            _ => None,
        };
        let number = text.and_then(|text| text.parse::<T>().ok());
        let number = number.filter(|&n| n.into().is_finite() && accept(n.into()));
        number.ok_or_else(|| self.expected(what))
    }

    /// The elements of a list.
    pub(super) fn list(&self, what: &str) -> Result<Vec<Value<'d>>> {
        let list = self.value.get_ref().as_array().ok_or_else(|| self.expected(what))?;
        let element = |value| Value { document: self.document, key: self.key.clone(), value };
        Ok(list.iter().map(element).collect())
    }

    /// A table of its own, called `name` in messages.
    pub(super) fn table(&self, name: impl Into<String>) -> Result<Table<'d>> {
        let what = format!("a table, [{}] or {{ .. }}", self.key);
        let entries = self.value.get_ref().as_table().ok_or_else(|| self.expected(&what))?;
        Ok(Table { document: self.document, name: name.into(), place: self.place(), entries })
    }
}
