//! The table `[data]`: which files, and how they are divided into parts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::document::{Document, Place, Table, Value};
use super::format::{Classes, Format};
use crate::data::{ArrayDataset, Dataset, Normalize, Subset, outputs};
use crate::error::{Error, Result};

/// How inputs are brought into range.
#[derive(Clone)]
enum Normalization {
    /// By mean and deviation of the training part.
    OfTraining,
    Fixed(Normalize),
    None,
}

/// The table `[data]`.
#[derive(Clone)]
pub(super) struct DataConfig {
    pub(super) format: Format,
    path: PathBuf,
    test_path: Option<(PathBuf, Place)>,
    classes: Option<usize>,
    class_names: Option<Vec<String>>,
    /// Whether values are to be predicted, not classes.
    values: bool,
    valid: f64,
    test: f64,
    normalize: Normalization,
    normalize_place: Place,
    place: Place,
}

impl DataConfig {
    pub(super) fn parse(root: &Table<'_>, base: &Path, values: bool) -> Result<Self> {
        let table = root.need("data", "a table [data] with the path of the data")?;
        let table = table.table("[data]")?.only(&[
            "format",
            "path",
            "test_path",
            "classes",
            "class_names",
            "label",
            "inputs",
            "labels",
            "valid",
            "test",
            "normalize",
        ])?;
        let path_value = table.need("path", "the file or directory with the data")?;
        let path = base.join(path_value.string("a path")?);
        let format = Format::parse(&table, &path)?;
        let fraction = |key: &str, least: f64| {
            let what = "a fraction of the data between 0 and 1";
            let value = table.get(key).map(|v| v.number::<f64>(what, |x| x >= least && x < 1.0));
            value.transpose()
        };
        let valid = fraction("valid", f64::MIN_POSITIVE)?.unwrap_or(0.1);
        let test = fraction("test", 0.0)?.unwrap_or(0.1);
        if valid + test >= 1.0 {
            let reason = format!("valid = {valid} and test = {test} leave nothing to train on");
            return Err(path_value.error(reason));
        }
        let strings = |value: Value<'_>| -> Result<Vec<String>> {
            let what = "a list of names";
            let list = value.list(what)?;
            list.iter().map(|name| name.string("a name").map(str::to_owned)).collect()
        };
        let class_names = table.get("class_names").map(strings).transpose()?;
        let classes = table.get("classes").map(|v| v.whole(1..1 << 20)).transpose()?;
        if let (Some(names), Some(count)) = (&class_names, classes)
            && names.len() != count
        {
            let reason = format!("{} names for {count} classes", names.len());
            return Err(table.need("class_names", "")?.error(reason));
        }
        let named = table.get("classes").or_else(|| table.get("class_names"));
        if let Some(named) = named.filter(|_| values) {
            return Err(named.error("there are no classes where the loss is \"mse\""));
        }
        let test_path = match table.get("test_path") {
            Some(value) if matches!(format, Format::Idx | Format::Cifar10) => {
                return Err(value.error("a directory of this format has its own test files"));
            }
            value => value.map(|v| Ok((base.join(v.string("a path")?), v.place()))).transpose()?,
        };
        Ok(DataConfig {
            format,
            path,
            test_path,
            classes,
            class_names,
            values,
            valid,
            test,
            normalize: normalization(table.get("normalize"))?,
            normalize_place: table.get("normalize").map_or(0..0, |value| value.place()),
            place: path_value.place(),
        })
    }

    fn classes(&self) -> Classes<'_> {
        match (&self.class_names, self.classes) {
            _ if self.values => Classes::None,
            (Some(names), _) => Classes::Named(names),
            (None, Some(count)) => Classes::Count(count),
            (None, None) => Classes::Unknown,
        }
    }

    /// Reads, splits and normalises.
    pub(super) fn load(&self, document: &Document, seed: u64) -> Result<Data> {
        let at = |place: &Place| {
            let place = place.clone();
            move |error: Error| document.error(&place, error)
        };
        if !self.path.exists() {
            let reason = format!("there is no file or directory {}", self.path.display());
            return Err(document.error(&self.place, reason));
        }
        let read = self.format.read(&self.path, None, self.classes());
        let (data, mut test) = read.map_err(at(&self.place))?;
        if let Some((path, place)) = &self.test_path {
            let names = data.class_names();
            let classes = if self.values { Classes::None } else { Classes::Named(&names) };
            let (data, _) = self.format.read(path, None, classes).map_err(at(place))?;
            test = Some(data);
        }
        let data = self.split(data, test, seed).map_err(at(&self.place))?;
        let normalize = match &self.normalize {
            Normalization::OfTraining => Normalize::of(&data.train()),
            Normalization::None => return Ok(data),
            Normalization::Fixed(normalize) => normalize.clone(),
        };
        let channels = data.input_shape().first().copied().unwrap_or(1);
        if normalize.mean.len() != channels || normalize.std.len() != channels {
            let reason = format!(
                "{} means and {} deviations, but an example has {channels} channels",
                normalize.mean.len(),
                normalize.std.len()
            );
            return Err(document.error(&self.normalize_place, reason));
        }
        Ok(data.normalized(&normalize))
    }

    /// Divides data into parts: a pure function of labels, fractions and seed.
    pub(super) fn split(
        &self,
        data: ArrayDataset,
        test: Option<ArrayDataset>,
        seed: u64,
    ) -> Result<Data> {
        if let Some(test) = &test
            && test.input_shape() != data.input_shape()
        {
            let (test, data) = (test.input_shape(), data.input_shape());
            let reason = format!("examples have shape {test:?}, but {data:?} in the other files");
            return Err(Error::config("the test set", reason));
        }
        let part = |fraction: f64| (data.len() as f64 * fraction).round() as usize;
        let whole = Subset::all(Arc::new(data.clone()));
        let own_test = test.is_some() || self.test_path.is_some();
        let (rest, held_out) = match part(self.test) {
            count if own_test || count == 0 => (whole, None),
            count => {
                let (rest, held_out) = whole.hold_out(count, seed)?;
                (rest, Some(held_out))
            }
        };
        let (train, valid) = rest.hold_out(part(self.valid).max(1), seed)?;
        let [train, valid] = [train, valid].map(|part| part.indices().to_vec());
        let held_out = held_out.map(|part| part.indices().to_vec());
        Ok(Data { data, own_test: test, train, valid, held_out })
    }
}

fn normalization(value: Option<Value<'_>>) -> Result<Normalization> {
    let Some(value) = value else { return Ok(Normalization::OfTraining) };
    if value.is_table() {
        let table = value.table("normalize")?.only(&["mean", "std"])?;
        let what = "a list of numbers, one per channel";
        let list = |key: &str, what_each: &str, accept: fn(f64) -> bool| -> Result<Vec<f32>> {
            let list = table.need(key, what)?.list(what)?;
            list.iter().map(|v| v.number(what_each, accept)).collect()
        };
        let mean = list("mean", "a number", |_| true)?;
        let std = list("std", "a number above 0", |x| x > 0.0 && (x as f32) > 0.0)?;
        return Ok(Normalization::Fixed(Normalize { mean, std }));
    }
    if value.string("").is_err() {
        return Err(value.expected("\"train\", \"none\", \"mnist\", \"cifar10\" or { mean, std }"));
    }
    Ok(match value.word(&["train", "none", "mnist", "cifar10"])? {
        "train" => Normalization::OfTraining,
        "none" => Normalization::None,
        "mnist" => Normalization::Fixed(Normalize::mnist()),
        _ => Normalization::Fixed(Normalize::cifar10()),
    })
}

/// A part of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What is learnt from.
    Train,
    /// What decides when to stop.
    Valid,
    /// What is looked at once, at the end.
    Test,
    /// Everything; of data that have a test set of their own, that.
    All,
}

/// Data, divided.
pub struct Data {
    data: ArrayDataset,
    /// A test set in files of its own.
    own_test: Option<ArrayDataset>,
    train: Vec<usize>,
    valid: Vec<usize>,
    /// The test part of `data`, if it was held out.
    held_out: Option<Vec<usize>>,
}

impl Data {
    /// The shape of one example.
    pub(super) fn input_shape(&self) -> &[usize] {
        self.data.input_shape()
    }

    /// How many outputs a model must have, and for what.
    pub(super) fn outputs(&self) -> (usize, &'static str) {
        outputs(&self.data)
    }

    /// What to learn from.
    pub(super) fn train(&self) -> Subset {
        Subset::new(Arc::new(self.data.clone()), self.train.clone())
    }

    /// A part; `None` if there is no test part.
    pub fn part(&self, part: Part) -> Option<Subset> {
        let all = |data: &ArrayDataset| Subset::all(Arc::new(data.clone()));
        let some = |indices: &[usize]| Subset::new(Arc::new(self.data.clone()), indices.to_vec());
        match part {
            Part::Train => Some(self.train()),
            Part::Valid => Some(some(&self.valid)),
            Part::Test => {
                self.own_test.as_ref().map(all).or_else(|| self.held_out.as_deref().map(some))
            }
            Part::All => Some(all(self.own_test.as_ref().unwrap_or(&self.data))),
        }
    }

    pub(super) fn normalized(self, normalize: &Normalize) -> Self {
        let own_test = self.own_test.map(|test| test.normalized(normalize.clone()));
        Data { data: self.data.normalized(normalize.clone()), own_test, ..self }
    }
}
