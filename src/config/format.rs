//! The formats that examples come in, and what is known about their classes.

use std::path::Path;

use super::document::Table;
use crate::data::{
    ArrayDataset, read_cifar10_dir, read_cifar10_file, read_csv, read_csv_inputs, read_csv_values,
    read_idx_dir, read_idx_images, read_idx_pair, read_npz, read_npz_inputs, read_npz_values,
    read_png, read_png_dir,
};
use crate::error::{Error, Result};

/// How examples are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A directory of IDX files.
    Idx,
    /// A directory of CIFAR-10 binary files, or one of them.
    Cifar10,
    /// A directory of PNG images per class.
    Png,
    /// A table with a column of labels.
    Csv {
        /// The name of that column.
        label: String,
    },
    /// NumPy arrays of inputs and labels.
    Npz {
        /// The name of the array of inputs.
        inputs: String,
        /// The name of the array of labels.
        labels: String,
    },
}

impl Format {
    /// The format that `[data]` says, or that its path looks like.
    pub(super) fn parse(table: &Table<'_>, path: &Path) -> Result<Self> {
        let mut format = match table.get("format") {
            None => Format::guess(path),
            Some(value) => match value.word(&["idx", "cifar10", "png", "csv", "npz"])? {
                "idx" => Format::Idx,
                "cifar10" => Format::Cifar10,
                "png" => Format::Png,
                "csv" => Format::csv(),
                _ => Format::npz(),
            },
        };
        let name = |key: &str, into: Option<&mut String>| match (table.get(key), into) {
            (Some(value), None) => {
                Err(value.error(format!("`{key}` means nothing in this format")))
            }
            (Some(value), Some(into)) => value.string("a name").map(|name| *into = name.to_owned()),
            (None, _) => Ok(()),
        };
        match &mut format {
            Format::Csv { label } => {
                name("label", Some(label))?;
                name("inputs", None)?;
                name("labels", None)?;
            }
            Format::Npz { inputs, labels } => {
                name("inputs", Some(inputs))?;
                name("labels", Some(labels))?;
                name("label", None)?;
            }
            _ => ["label", "inputs", "labels"].into_iter().try_for_each(|key| name(key, None))?,
        }
        Ok(format)
    }

    fn csv() -> Self {
        Format::Csv { label: "label".into() }
    }

    fn npz() -> Self {
        Format::Npz { inputs: "x".into(), labels: "y".into() }
    }

    /// The format that files at this path have by all appearances; with the usual names of columns
    /// and arrays.
    pub(super) fn guess(path: &Path) -> Self {
        let named =
            |extension: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension));
        let names = std::fs::read_dir(path).into_iter().flatten().flatten();
        let mut names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        if named("csv") {
            Format::csv()
        } else if named("npz") {
            Format::npz()
        } else if path.is_file() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let cifar = name.ends_with(".bin") || name.ends_with(".bin.gz");
            if cifar { Format::Cifar10 } else { Format::Idx }
        } else {
            match names.find(|name| name.contains("idx3-ubyte") || name.contains("_batch")) {
                Some(name) if name.contains("idx3-ubyte") => Format::Idx,
                Some(_) => Format::Cifar10,
                None => Format::Png,
            }
        }
    }

    /// Reads examples with values to predict.
    fn read_values(&self, path: &Path) -> Result<ArrayDataset> {
        match self {
            Format::Csv { label } => read_csv_values(path, label),
            Format::Npz { inputs, labels } => read_npz_values(path, inputs, labels),
            _ => {
                let reason = "only CSV and npz files hold values to predict, as loss = \"mse\" \
                              needs them";
                Err(Error::config("format", reason))
            }
        }
    }

    /// Reads labelled examples: those of a directory or file, and its test set if it has one of its
    /// own. `classes` are the names of the classes if they are known, else at least their number
    /// must be, where files do not say it; or that there are none, but values.
    pub(super) fn read(
        &self,
        path: &Path,
        labels_path: Option<&Path>,
        classes: Classes<'_>,
    ) -> Result<(ArrayDataset, Option<ArrayDataset>)> {
        let count = || {
            classes.count().ok_or_else(|| {
                let reason = "IDX and npz files do not say how many there are; expected a number";
                Error::config("classes", reason)
            })
        };
        if let Classes::None = classes {
            return Ok((self.read_values(path)?, None));
        }
        let (data, test) = match self {
            Format::Idx => match labels_path {
                Some(labels) => (read_idx_pair(path, labels, count()?)?, None),
                None => read_idx_dir(path, count()?)?,
            },
            Format::Cifar10 if path.is_file() => (read_cifar10_file(path)?, None),
            Format::Cifar10 => {
                let (data, test) = read_cifar10_dir(path)?;
                (data, Some(test))
            }
            Format::Png => (read_png_dir(path)?, None),
            Format::Csv { label } => (read_csv(path, label, classes.names())?, None),
            Format::Npz { inputs, labels } => (read_npz(path, inputs, labels, count()?)?, None),
        };
        let named = |data: ArrayDataset| match (self, classes) {
            // Their labels are numbers: the names are given in that order.
            (Format::Idx | Format::Npz { .. }, Classes::Named(names)) => {
                Ok(data.with_class_names(names.to_vec()))
            }
            (_, Classes::Named(names)) => data.with_classes(names),
            _ => Ok(data),
        };
        Ok((named(data)?, test.map(named).transpose()?))
    }

    /// Reads examples without labels, from a file.
    pub(super) fn read_inputs(&self, path: &Path) -> Result<ArrayDataset> {
        match self {
            Format::Csv { label } => read_csv_inputs(path, label),
            Format::Npz { inputs, .. } => read_npz_inputs(path, inputs),
            Format::Cifar10 => read_cifar10_file(path),
            _ if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png")) => read_png(path),
            _ => read_idx_images(path),
        }
    }
}

/// What is known about classes before files are read.
#[derive(Clone, Copy)]
pub(super) enum Classes<'a> {
    /// Values are to be predicted.
    None,
    Unknown,
    Count(usize),
    Named(&'a [String]),
}

impl<'a> Classes<'a> {
    fn count(self) -> Option<usize> {
        match self {
            Classes::None | Classes::Unknown => None,
            Classes::Count(count) => Some(count),
            Classes::Named(names) => Some(names.len()),
        }
    }

    fn names(self) -> Option<&'a [String]> {
        match self {
            Classes::Named(names) => Some(names),
            _ => None,
        }
    }
}
