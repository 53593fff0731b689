//! From a run that ends, a run directory or a log to a [`Report`].

use std::io::{ErrorKind, Read};
use std::path::Path;

use serde_json::Value;

use super::png::Image;
use super::{Mistake, Network, Report, Validation, pictures};
use crate::checkpoint::{self, CheckpointFile, Entry, Retention, Role};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::files::{self, read_text};
use crate::monitor::{EarlyStopping, Observation, read_log};
use crate::nn::Module;
use crate::numbers::grouped;
use crate::params::Params;
use crate::tensor::Shape;
use crate::trainer::{EndInfo, Evaluation, JsonLines, Stop, evaluate, recorded_history};

/// How many of the worst mistakes are shown.
const MISTAKES: usize = 24;

impl Report {
    /// A report on a run that has ended. Unless it was interrupted, its best weights are evaluated
    /// once more on the validation data, to see what they get wrong.
    ///
    /// # Errors
    /// If the recorded specification cannot be used, which a run would not have been started with.
    pub fn of_ended(end: &EndInfo<'_>) -> Result<Self> {
        let title =
            end.checkpoints.map_or(end.train.name().to_owned(), |c| c.dir().display().to_string());
        let mut report =
            Report::new(title, end.monitor.history().to_vec(), end.monitor.spec().clone())?;
        report.stop = Some(end.stop.clone());
        report.config = settings(end.config);
        report.warnings = end.warnings.to_vec();
        report.facts = vec![
            ("Examples per second", grouped(end.images_per_second as u64)),
            ("Training examples", grouped(end.train.len() as u64)),
            ("Validation examples", grouped(end.valid.len() as u64)),
        ];
        if let Some(checkpoints) = end.checkpoints {
            let entries = checkpoints.entries().iter().cloned();
            report.checkpoints = entries.zip(checkpoints.roles()).collect();
        }
        let input = end.train.input_shape();
        let shape = [&[1], input].concat();
        report.network =
            Network::Summary(Module::summary(&end.model, end.params, shape.as_slice())?);
        report.filters = first_filters(end.params, input);
        let classes = end.valid.targets() == 0;
        if classes && !matches!(end.stop, Stop::Interrupted(_)) && report.best().is_some() {
            let evaluation = evaluate(&end.model, end.params, end.valid);
            report.validation = Some(Validation::of(evaluation, end.valid));
        }
        Ok(report)
    }

    /// A report on a run directory, as far as its checkpoints and its `log.jsonl` tell. The
    /// directory is neither locked nor changed.
    ///
    /// # Errors
    /// If there is no checkpoint that verifies, or it has no evaluation.
    pub fn of_run_dir(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let name = || dir.display().to_string();
        let (entries, _) = checkpoint::list(dir)?;
        let newest = entries.iter().rev().find_map(|entry| verified(entry).ok());
        let Some(newest) = newest else {
            return Err(Error::config(name(), "this directory holds no checkpoint that verifies"));
        };
        let state = newest.read_state()?;
        let history = recorded_history(&state);
        if history.is_empty() {
            return Err(Error::config(name(), "no evaluation has been recorded"));
        }
        let noted: Option<EarlyStopping> = serde_json::from_str(&state.monitor).ok();
        let mut report = Report::judged(name(), history, noted)?;
        report.config = settings(&state.config);
        let shapes = state.params.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone()));
        report.network = Network::Tensors(shapes.collect());

        let roles = Retention::default().roles(&entries);
        let best = entries.iter().zip(&roles).find(|(_, roles)| roles.best);
        let first = state.params.iter().find(|tensor| tensor.shape.len() == 4);
        if let (Some((best, _)), Some(first)) = (best, first) {
            // A damaged best checkpoint costs the report its filters only.
            let weight = verified(best).and_then(|file| file.read_tensor(Role::Param, &first.name));
            if let Ok(weight) = weight {
                report.filters = pictures::filters(&weight.data, &Shape::new(&weight.shape), None);
            }
        }
        report.checkpoints = entries.into_iter().zip(roles).collect();
        // A log that cannot be read is no reason to have no report: the page says so.
        let _ = report.add_resumes_of_log(&dir.join(JsonLines::FILE_NAME));
        Ok(report)
    }

    /// A report on a log in JSON Lines, of this library or any other program: see
    /// [`read_log`]. It is judged by the rule that the log names, or by the default one.
    ///
    /// # Errors
    /// If the file cannot be read or has no evaluation.
    pub fn of_log(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = read_text(path)?;
        let history = read_log(path, &text)?;
        let named = text.lines().rev().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            line["monitor"].as_str()?.parse().ok()
        });
        let mut report = Report::judged(path.display().to_string(), history, named)?;
        report.add_resumes(text.as_bytes());
        Ok(report)
    }

    /// A report on evaluations judged by the specification that was found beside them, if any.
    fn judged(
        title: String,
        history: Vec<Observation>,
        found: Option<EarlyStopping>,
    ) -> Result<Self> {
        let own = found.is_some();
        let spec = found.unwrap_or_default();
        let mut report = Report::new(title, history, spec)?;
        let reason = report.verdicts.last().and_then(|verdict| verdict.stop_reason().cloned());
        report.stop = reason.filter(|_| own).map(Stop::Early);
        report.own = own;
        Ok(report)
    }

    /// Notes that the run was resumed after this step.
    pub(super) fn add_resume(&mut self, step: Option<u64>) {
        let first = step.and_then(|step| self.history.iter().position(|seen| seen.step > step));
        self.resumed.extend(first);
    }

    /// Notes what a log, if there is one, says about resumes.
    ///
    /// # Errors
    /// If the log cannot be read, which also becomes a warning of this report.
    pub(super) fn add_resumes_of_log(&mut self, path: &Path) -> Result<()> {
        let read = files::open(path).and_then(|mut file| {
            let mut log = Vec::new();
            file.read_to_end(&mut log).map(|_| log)
        });
        match read {
            Ok(log) => self.add_resumes(&log),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                let error = Error::io("read", path, error);
                self.warnings.push(error.to_string());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Notes the evaluations that a log says were the first after a resume.
    fn add_resumes(&mut self, log: &[u8]) {
        for line in log.split(|&byte| byte == b'\n') {
            let line: Value = serde_json::from_slice(line).unwrap_or_default();
            if line["resumed"] == true {
                let step = line["step"].as_u64();
                self.resumed.extend(self.history.iter().position(|seen| Some(seen.step) == step));
            }
        }
    }
}

impl Validation {
    fn of(evaluation: Evaluation, data: &dyn Dataset) -> Self {
        let Evaluation { confusion, losses, predictions, .. } = evaluation;
        let wrong = (0..data.len()).filter(|&i| predictions[i] != data.label(i));
        let mut wrong: Vec<usize> = wrong.collect();
        wrong.sort_by(|&a, &b| losses[b].total_cmp(&losses[a]));
        let mistake = |&index: &usize| Mistake {
            index,
            label: data.label(index),
            predicted: predictions[index],
            loss: losses[index],
            image: pictures::example(data, index),
        };
        Validation {
            confusion,
            class_names: data.class_names(),
            mistakes: wrong.iter().take(MISTAKES).map(mistake).collect(),
        }
    }
}

/// The settings for people: the architecture has its own place, and what is optional in Rust is
/// not of interest.
fn settings(config: &[(String, String)]) -> Vec<(String, String)> {
    let plain = |value: &str| {
        let inner = value.strip_prefix("Some(").and_then(|rest| rest.strip_suffix(')'));
        inner.unwrap_or(if ["None", "[]"].contains(&value) { "none" } else { value }).to_owned()
    };
    let shown = config.iter().filter(|(key, _)| key != "architecture");
    shown.map(|(key, value)| (key.replace('_', " "), plain(value))).collect()
}

fn verified(entry: &Entry) -> Result<CheckpointFile> {
    let file = CheckpointFile::open(&entry.path)?;
    file.verify()?;
    Ok(file)
}

/// The filters of the first parameter that has any.
fn first_filters(params: &Params, input: &[usize]) -> Vec<Image> {
    let weight = params.ids().find(|&id| params.shape(id).len() >= 2);
    weight
        .map_or(Vec::new(), |id| pictures::filters(params.get(id), &params.shape(id), Some(input)))
}
