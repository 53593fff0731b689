//! A training run described by a file, for those who would rather not write a program.
//!
//! ```toml
//! [data]
//! path = "data/mnist"
//! classes = 10
//!
//! [model]
//! layers = [{ conv2d = 6, kernel = 5 }, "relu", { max_pool2d = 2 }, "flatten", { linear = 10 }]
//!
//! [optimizer]
//! lr = 0.05
//! momentum = 0.9
//!
//! [monitor]
//! rule = "any(patience(5), gl(20))"
//! ```
//!
//! `docs/train.md` lists every key. Three steps, because each needs what the one before has found:
//!
//! ```text
//! RunConfig::read      the text; every key is known, every value is one that can work
//! RunConfig::load      the data: how large is an example, how many classes are there?
//! RunConfig::trainer   the model, layer by layer from the size of an example
//! ```
//!
//! Whatever is wrong in one of them is reported with the line of the file that it comes from. The
//! file's text is kept in every checkpoint; [`Saved`] is a trained model with what its checkpoint
//! knows about inputs, so that using one needs no file but the checkpoint.

mod data;
mod document;
mod format;
mod model;
mod saved;
mod training;

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

pub use data::{Data, Part};
pub use saved::{Names, Saved};

use crate::checkpoint::Retention;
use crate::data::{Augment, Compose};
use crate::error::{Error, Result};
use crate::files::read_text;
use crate::monitor::EarlyStopping;
use crate::nn::Sequential;
use crate::optim::{LrSchedule, Sgd};
use crate::params::Params;
use crate::trainer::Trainer;
use data::DataConfig;
use document::{Document, Place, Table};
use model::LayerSpec;
use training::Training;

/// Under which name a checkpoint keeps the file's text.
const NOTE: &str = "run.toml";

/// The largest configuration file that is read: 1 MiB.
const LIMIT: u64 = 1 << 20;

/// Everything that a configuration file says.
pub struct RunConfig {
    document: Document,
    /// What everything random is a function of.
    pub seed: u64,
    /// What becomes of the run besides its weights.
    pub run: RunDir,
    data: DataConfig,
    layers: Vec<LayerSpec>,
    /// The place of the list of layers.
    model: Place,
    training: Training,
    optimizer: Sgd,
    schedule: Box<dyn LrSchedule>,
    monitor: EarlyStopping,
    augment: Vec<(Box<dyn Augment>, Place)>,
}

/// The table `[run]`.
pub struct RunDir {
    /// The directory of the run.
    pub dir: PathBuf,
    /// How many checkpoints are kept.
    pub retention: Retention,
    /// Saving happens in the background, at most this often.
    pub save_every: Option<Duration>,
    /// Print the loss every so many steps; 0 for never.
    pub progress: u64,
    /// Whether to write `log.jsonl`.
    pub log: bool,
    /// Whether to write `report.html`.
    pub report: bool,
    /// Whether to write event files for TensorBoard.
    pub tensorboard: bool,
}

impl RunConfig {
    /// Reads a file. Paths in it are relative to the directory that it is in.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; [`Error::Config`] with line, column and the line itself
    /// if it is not TOML, has an unknown key or a value that cannot work.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = read_text(path)?;
        let name = path.display().to_string();
        if text.len() as u64 > LIMIT {
            let reason = format!("{} bytes are too many for a configuration file", text.len());
            return Err(Error::config(name, reason));
        }
        RunConfig::parse(name, text, path.parent().unwrap_or(Path::new("")))
    }

    /// Understands the text of a file called `name`, in which paths are relative to `base`.
    ///
    /// # Errors
    /// As [`RunConfig::read`].
    pub fn parse(name: impl Into<String>, text: impl Into<String>, base: &Path) -> Result<Self> {
        let document = Document { name: name.into(), text: text.into() };
        let root = DeTable::parse(&document.text)
            .map_err(|e| document.error(&e.span().unwrap_or_default(), e.message()))?;
        let root = Table::root(&document, root.get_ref()).only(&[
            "seed",
            "run",
            "data",
            "model",
            "train",
            "optimizer",
            "schedule",
            "monitor",
            "augment",
        ])?;
        let seed = root.get("seed").map(|seed| seed.whole(0..1 << 63)).transpose()?.unwrap_or(0);
        let model = root.need("model", "a table [model] with a list of layers")?;
        let model = model.table("[model]")?.only(&["layers"])?;
        let list = model.need("layers", "a list of layers")?;
        let layers = model::parse(&list)?;
        let training = Training::parse(&root)?;
        let data = DataConfig::parse(&root, base, training.values)?;
        let optimizer = training::optimizer(&root)?;
        let schedule = training::schedule(&root, &training)?;
        let monitor = training::monitor(&root, training.values)?;
        let augment = training::augment(&root)?;
        let run = training::run_dir(&root, &document.name, base)?;
        let model = list.place();
        Ok(RunConfig {
            seed,
            run,
            data,
            layers,
            model,
            training,
            optimizer,
            schedule,
            monitor,
            augment,
            document: document.clone(),
        })
    }

    /// Trains at most so many epochs instead of what the file says.
    pub fn epochs(mut self, epochs: u64) -> Self {
        self.training.epochs = epochs;
        self
    }

    /// Reads and splits the data.
    ///
    /// # Errors
    /// Whatever reading them returns, at the line that names them.
    pub fn load(&self) -> Result<Data> {
        let data = self.data.load(&self.document, self.seed)?;
        for (augment, place) in &self.augment {
            if data.input_shape().len() != 3 {
                let shape = data.input_shape();
                let reason =
                    format!("{augment:?} is for images, but an example has shape {shape:?}");
                return Err(self.document.error(place, reason));
            }
        }
        Ok(data)
    }

    /// The model, with its first weights.
    ///
    /// # Errors
    /// [`Error::Config`] at the layer that does not fit the one before, or at the list of layers if
    /// what comes out at its end is not one number per class or value.
    pub fn model(&self, data: &Data) -> Result<(Sequential, Params)> {
        let (shape, outputs) = (data.input_shape(), data.outputs());
        model::build(&self.document, &self.layers, &self.model, shape, outputs, self.seed)
    }

    /// A trainer with all settings. Whom to tell, where to save and whether to resume is left.
    ///
    /// # Errors
    /// As [`RunConfig::model`].
    pub fn trainer(self, data: &Data) -> Result<Trainer<Sequential>> {
        let (model, params) = self.model(data)?;
        let training = self.training;
        let mut trainer = Trainer::new(model, params, self.optimizer)
            .schedule(self.schedule)
            .monitor(self.monitor)
            .epochs(training.epochs)
            .batch_size(training.batch_size)
            .accumulate(training.accumulate)
            .on_non_finite(training.on_non_finite)
            .note(NOTE, self.document.text);
        if let Some(norm) = training.clip_norm {
            trainer = trainer.clip_grad_norm(norm);
        }
        if let Some(limit) = training.clip_value {
            trainer = trainer.clip_grad_value(limit);
        }
        if let Some(interval) = self.run.save_every {
            trainer = trainer.save_in_background(interval);
        }
        if !self.augment.is_empty() {
            let all = self.augment.into_iter().map(|(augment, _)| augment);
            trainer = trainer.augment(Compose(all.collect()));
        }
        Ok(trainer)
    }
}
