//! Tables of numbers with a column of labels: comma-separated values (RFC 4180).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::ArrayDataset;
use super::files::Source;
use crate::error::{DataFault, Error, Result};

/// Reads a table: each line an example, each column an input, except the column `label`.
///
/// The first line names the columns. Labels may be any text; the distinct ones, sorted (as numbers
/// if all are whole numbers), are the classes and their names. A file that belongs to another one,
/// such as a test set, is given the names of its `classes`, so that equal labels mean equal
/// classes.
///
/// The examples have shape `[columns - 1]`. Columns differ in their units: normalise them with
/// [`Normalize::of`](super::Normalize::of) the training part.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read. [`Error::Data`], naming the line and the column, for a
/// field that is not a finite number, a missing or surplus field, a label that is not among
/// `classes`, an unclosed quote; also if there is no column `label` or no other one, or no
/// examples, or if the file is not UTF-8.
pub fn read_csv(
    path: impl AsRef<Path>,
    label: &str,
    classes: Option<&[String]>,
) -> Result<ArrayDataset> {
    let path = path.as_ref();
    let fault = |message| Error::data(path, DataFault::Other { message });
    let text = text(path)?;
    let table = Table::parse(&text, label, true).map_err(fault)?;

    let class_names = match classes {
        Some(names) => names.to_vec(),
        None => distinct(&table.labels),
    };
    let class_of: BTreeMap<&str, usize> =
        class_names.iter().enumerate().map(|(class, name)| (name.as_str(), class)).collect();
    let labels = table.labels.iter().map(|(line, text)| {
        class_of.get(text.as_ref()).copied().ok_or_else(|| {
            let known = class_names.join(", ");
            fault(format!("line {line}, column `{label}`: `{text}` is none of {known}"))
        })
    });
    let labels = labels.collect::<Result<Vec<_>>>()?;
    let name = path.display().to_string();
    let data = ArrayDataset::new(name, &[table.width], table.values, labels, class_names.len())?;
    Ok(data.with_class_names(class_names))
}

/// Reads a table with values to predict: as [`read_csv`], but the column `target` holds numbers.
///
/// # Errors
/// As [`read_csv`]; also for a target that is not a finite number.
pub fn read_csv_values(path: impl AsRef<Path>, target: &str) -> Result<ArrayDataset> {
    let path = path.as_ref();
    let fault = |message| Error::data(path, DataFault::Other { message });
    let text = text(path)?;
    let table = Table::parse(&text, target, true).map_err(fault)?;
    let number = |(line, text): &(usize, Cow<str>)| number(*line, target, text);
    let targets = table.labels.iter().map(number).collect::<Result<Vec<f32>, String>>();
    ArrayDataset::unlabelled(path.display().to_string(), &[table.width], table.values)?
        .with_targets(targets.map_err(fault)?)
}

/// Reads the inputs of a table: as [`read_csv`], but without labels. A column `label` is left out,
/// if there is one.
///
/// # Errors
/// As [`read_csv`], as far as it is about inputs.
pub fn read_csv_inputs(path: impl AsRef<Path>, label: &str) -> Result<ArrayDataset> {
    let path = path.as_ref();
    let text = text(path)?;
    let table = Table::parse(&text, label, false);
    let table = table.map_err(|message| Error::data(path, DataFault::Other { message }))?;
    ArrayDataset::unlabelled(path.display().to_string(), &[table.width], table.values)
}

fn text(path: &Path) -> Result<String> {
    String::from_utf8(Source::open(path)?.rest()?).map_err(|e| {
        let message = format!("not UTF-8 text (at byte {})", e.utf8_error().valid_up_to());
        Error::data(path, DataFault::Other { message })
    })
}

/// The distinct labels in the order of their numbers, or else of the alphabet.
fn distinct(labels: &[(usize, Cow<str>)]) -> Vec<String> {
    let names: BTreeSet<&str> = labels.iter().map(|(_, text)| text.as_ref()).collect();
    let mut names: Vec<String> = names.into_iter().map(String::from).collect();
    if names.iter().all(|name| name.parse::<i64>().is_ok()) {
        names.sort_by_key(|name| name.parse::<i64>().ok());
    }
    names
}

struct Table<'t> {
    /// Number of columns without the label.
    width: usize,
    /// `[n, width]`
    values: Vec<f32>,
    /// The label of each example and its line in the file, if there are labels.
    labels: Vec<(usize, Cow<'t, str>)>,
}

impl<'t> Table<'t> {
    fn parse(text: &'t str, label: &str, needed: bool) -> Result<Self, String> {
        let mut lines = Lines { rest: text.trim_start_matches('\u{feff}'), line: 1 };
        let Some(first) = lines.next() else { return Err("the file is empty".into()) };
        let (_, columns) = first?;
        let place = columns.iter().position(|name| name == label);
        if place.is_none() && needed {
            let columns = columns.join(", ");
            return Err(format!("no column `{label}`: the first line names {columns}"));
        }
        let width = columns.len() - usize::from(place.is_some());
        if width == 0 {
            return Err(format!("no columns besides `{label}`"));
        }
        let mut table = Table { width, values: Vec::new(), labels: Vec::new() };
        for fields in lines {
            let (line, mut fields) = fields?;
            if fields.len() != columns.len() {
                let (got, expected) = (fields.len(), columns.len());
                return Err(format!("line {line}: {got} fields where {expected} are named"));
            }
            table.labels.extend(place.map(|place| (line, std::mem::take(&mut fields[place]))));
            for (column, field) in fields.iter().enumerate().filter(|&(i, _)| Some(i) != place) {
                table.values.push(number(line, &columns[column], field)?);
            }
        }
        if table.values.is_empty() {
            return Err("no examples below the first line".into());
        }
        Ok(table)
    }
}

fn number(line: usize, column: &str, field: &str) -> Result<f32, String> {
    let value = field.parse().ok().filter(|value: &f32| value.is_finite());
    value.ok_or_else(|| format!("line {line}, column `{column}`: `{field}` is not a finite number"))
}

/// The fields of each line that is not blank, with the number of the line they begin on.
struct Lines<'t> {
    rest: &'t str,
    line: usize,
}

impl<'t> Iterator for Lines<'t> {
    type Item = Result<(usize, Vec<Cow<'t, str>>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        let content = self.rest.trim_start_matches(|c: char| c.is_whitespace());
        self.advance(self.rest.len() - content.len());
        if self.rest.is_empty() {
            return None;
        }
        let line = self.line;
        let mut fields = Vec::new();
        loop {
            match self.field() {
                Ok(field) => fields.push(field),
                Err(message) => {
                    self.rest = "";
                    return Some(Err(message));
                }
            }
            let separator = self.rest.chars().next();
            self.advance(separator.map_or(0, char::len_utf8));
            if separator != Some(',') {
                return Some(Ok((line, fields)));
            }
        }
    }
}

impl<'t> Lines<'t> {
    /// Takes `count` bytes off the front.
    fn advance(&mut self, count: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(count);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    /// One field, up to the comma, the line feed or the end that follows it.
    fn field(&mut self) -> Result<Cow<'t, str>, String> {
        let start = self.line;
        let blanks = self.rest.len() - self.rest.trim_start_matches([' ', '\t']).len();
        if !self.rest[blanks..].starts_with('"') {
            let end = self.rest.find([',', '\n']).unwrap_or(self.rest.len());
            return Ok(self.advance(end).trim().into());
        }
        self.advance(blanks + 1);
        let mut text = String::new();
        loop {
            let end = self.rest.find('"');
            let end = end.ok_or_else(|| format!("line {start}: a quote is never closed"))?;
            text.push_str(self.advance(end));
            self.advance(1);
            if !self.rest.starts_with('"') {
                break;
            }
            text.push('"'); // written as two
            self.advance(1);
        }
        let end = self.rest.find([',', '\n']).unwrap_or(self.rest.len());
        let after = self.advance(end).trim();
        if !after.is_empty() {
            return Err(format!("line {}: `{after}` follows a closing quote", self.line));
        }
        Ok(text.into())
    }
}
