//! A trained model, with what its checkpoint knows about inputs and classes.

use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::data::Data;
use super::format::{Classes, Format};
use super::{NOTE, Part, RunConfig};
use crate::checkpoint::TrainingState;
use crate::data::{ArrayDataset, Batches, Dataset, Normalize, Subset};
use crate::error::{Error, Result};
use crate::nn::{Module, Sequential};
use crate::params::Params;
use crate::trainer::{self, EVALUATION_BATCH};

/// A checkpoint may come from anywhere: larger inputs are not believed.
const LARGEST_INPUT: usize = 1 << 26;

/// A model that a checkpoint holds completely.
pub struct Saved {
    model: Sequential,
    params: Params,
    input_shape: Vec<usize>,
    /// The names of the classes; none if the model predicts values.
    pub classes: Vec<String>,
    outputs: usize,
    normalize: Option<Normalize>,
    /// The text of the file that the run was described by, if it was.
    config: Option<String>,
}

impl Saved {
    /// Takes the model out of a training state.
    ///
    /// # Errors
    /// [`Error::Config`] if the state is not that of a [`Sequential`], or says nothing about
    /// inputs; [`Error::Load`] if the weights do not fit the architecture.
    pub fn new(state: &TrainingState<'_>) -> Result<Self> {
        let text = |key: &str| {
            state.config(key).ok_or_else(|| {
                let reason = "this checkpoint does not hold it; it cannot be used without the \
                              program that made it";
                Error::config(key, reason)
            })
        };
        fn json<T: DeserializeOwned>(key: &str, text: &str) -> Result<T> {
            serde_json::from_str(text).map_err(|e| Error::config(key, e.to_string()))
        }
        let mut params = Params::new(0);
        let model = Sequential::from_architecture(&mut params, text("architecture")?)?;
        state.load_into(&mut params)?;
        let input_shape: Vec<usize> = json("input_shape", text("input_shape")?)?;
        let classes: Vec<String> = json("classes", text("classes")?)?;
        let normalize: Option<Normalize> = json("normalization", text("normalization")?)?;
        let size = input_shape.iter().try_fold(1_usize, |size, &n| size.checked_mul(n));
        let usable = (1..=4).contains(&input_shape.len())
            && !input_shape.contains(&0)
            && size.is_some_and(|size| size <= LARGEST_INPUT);
        if !usable {
            let reason = format!("{input_shape:?} is not the shape of an example");
            return Err(Error::config("input_shape", reason));
        }
        let output = model.check(&params, [&[1], &input_shape[..]].concat().as_slice())?;
        let outputs = match *output {
            [1, outputs] if classes.is_empty() || classes.len() == outputs => outputs,
            _ => {
                let reason = format!("{} classes for an output of shape {output}", classes.len());
                return Err(Error::config("classes", reason));
            }
        };
        let config = state.config(NOTE).map(str::to_owned);
        Ok(Saved { model, params, input_shape, classes, outputs, normalize, config })
    }

    /// Reads labelled examples as the run would have done.
    ///
    /// `labels` is the second of a pair of IDX files. [`Part::All`] needs nothing else; the other
    /// parts are those of the run, if `path` has the data that it was trained on.
    ///
    /// # Errors
    /// Whatever reading returns; [`Error::Config`] if the examples have another shape or other
    /// classes, or if the part is not known.
    pub fn read(
        &self,
        path: &Path,
        labels: Option<&Path>,
        part: Part,
        options: &Names,
    ) -> Result<Subset> {
        let format = self.format(path, options);
        let classes = match self.classes[..] {
            [] => Classes::None,
            ref names => Classes::Named(names),
        };
        let (data, test) = format.read(path, labels, classes)?;
        if part == Part::All {
            let data = self.prepared(test.unwrap_or(data))?;
            return Ok(Subset::all(Arc::new(data)));
        }
        let Some(config) = self.config() else {
            let reason = "the run was not described by a file, so how it split its data is not \
                          known; evaluate on all";
            return Err(Error::config("split", reason));
        };
        let data = self.prepared(data)?;
        let test = test.map(|test| self.prepared(test)).transpose()?;
        let config = config?;
        let data: Data = config.data.split(data, test, config.seed)?;
        data.part(part)
            .ok_or_else(|| Error::config("split", "the run held out no test part; evaluate on all"))
    }

    /// Reads examples without labels.
    ///
    /// # Errors
    /// Whatever reading returns; [`Error::Config`] if the examples have another shape.
    pub fn read_inputs(&self, path: &Path, options: &Names) -> Result<ArrayDataset> {
        self.prepared(self.format(path, options).read_inputs(path)?)
    }

    /// The description of the run, unless it was not described by a file.
    fn config(&self) -> Option<Result<RunConfig>> {
        self.config.as_ref().map(|text| RunConfig::parse(NOTE, text, Path::new("")))
    }

    /// The format of a file, with the names that are given, or that the run used.
    fn format(&self, path: &Path, options: &Names) -> Format {
        let known = self.config().and_then(Result::ok).map(|config| config.data.format);
        let mut format = Format::guess(path);
        match (&mut format, known) {
            (Format::Csv { label }, Some(Format::Csv { label: known })) => *label = known,
            (
                Format::Npz { inputs, labels },
                Some(Format::Npz { inputs: known, labels: known_labels }),
            ) => {
                (*inputs, *labels) = (known, known_labels);
            }
            _ => {}
        }
        let set = |name: &mut String, given: &Option<String>| {
            if let Some(given) = given {
                name.clone_from(given);
            }
        };
        match &mut format {
            Format::Csv { label } => set(label, &options.label),
            Format::Npz { inputs, labels } => {
                set(inputs, &options.inputs);
                set(labels, &options.labels);
            }
            _ => {}
        }
        format
    }

    /// Examples as the model wants them.
    fn prepared(&self, data: ArrayDataset) -> Result<ArrayDataset> {
        let (found, expected) = (data.input_shape(), &self.input_shape[..]);
        if found != expected {
            let reason =
                format!("examples have shape {found:?}, but the model was trained on {expected:?}");
            return Err(Error::config(data.name(), reason));
        }
        if self.classes.is_empty() && ![0, self.outputs].contains(&data.targets()) {
            let (found, expected) = (data.targets(), self.outputs);
            let reason = format!("{found} values to predict, but the model predicts {expected}");
            return Err(Error::config(data.name(), reason));
        }
        let Some(normalize) = &self.normalize else { return Ok(data) };
        let channels = expected.first().copied().unwrap_or(1);
        if !normalize.fits(channels) {
            let reason = format!("{normalize:?} does not fit {channels} channels");
            return Err(Error::config("normalization", reason));
        }
        Ok(data.normalized(normalize.clone()))
    }

    /// Measures the model.
    pub fn evaluate(&self, data: &dyn Dataset) -> trainer::Evaluation {
        trainer::evaluate(&self.model, &self.params, data)
    }

    /// The probabilities of the classes for each example, or the predicted values.
    pub fn predict(&self, data: &dyn Dataset) -> Vec<Vec<f32>> {
        let mut batches = Batches::new(data, EVALUATION_BATCH);
        let mut all = Vec::with_capacity(data.len());
        while let Some(batch) = batches.next() {
            let outputs = match self.classes[..] {
                [] => trainer::predict_values(&self.model, &self.params, &batch.inputs),
                _ => trainer::predict(&self.model, &self.params, &batch.inputs),
            };
            all.extend(outputs.chunks_exact(self.outputs).map(<[f32]>::to_vec));
        }
        all
    }
}

/// Names of columns and arrays that differ from those of the run.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The column of labels in CSV.
    pub label: Option<String>,
    /// The array of inputs in npz.
    pub inputs: Option<String>,
    /// The array of labels in npz.
    pub labels: Option<String>,
}
