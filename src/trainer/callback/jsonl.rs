//! A log for programs: JSON Lines. `docs/log-format.md` describes it key by key.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use super::{Callback, EvaluationInfo, RunInfo};
use crate::error::{Error, Result};
use crate::monitor::Verdict;

/// Writes one JSON object per evaluation to a file.
///
/// When a run is resumed, lines after the point of resumption are dropped first: the log is of
/// one run, however often it was interrupted.
pub struct JsonLines {
    path: PathBuf,
    file: Option<File>,
    /// Whether the next evaluation is the first after a resume.
    resumed: bool,
    /// The monitor's specification.
    monitor: String,
}

/// A number at the top level is a measurement. What was made of it, what became of it and how long
/// it took are objects, which readers of other logs pass over.
#[derive(Serialize)]
struct Line<'a> {
    epoch: u64,
    step: u64,
    train_loss: Option<Number>,
    valid_loss: Number,
    valid_loss_se: Option<Number>,
    lr: Option<Number>,
    elapsed: Option<Number>,
    #[serde(flatten)]
    metrics: BTreeMap<&'a str, Number>,
    resumed: bool,
    monitor: &'a str,
    stop: Option<String>,
    verdict: &'a Verdict,
    checkpoint: Option<Checkpoint<'a>>,
    timing: Timing,
}

#[derive(Serialize)]
struct Checkpoint<'a> {
    file: Cow<'a, str>,
    roles: Vec<&'static str>,
}

#[derive(Serialize)]
struct Timing {
    images_per_second: f64,
    saving_overhead: f64,
}

/// JSON has no NaN and no infinities; they become texts.
struct Number(f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0.is_finite() { to.serialize_f64(self.0) } else { to.collect_str(&self.0) }
    }
}

impl JsonLines {
    /// Logs to the file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        JsonLines { path: path.into(), file: None, resumed: false, monitor: String::new() }
    }

    /// The lines of an existing log up to step `step`.
    fn lines_until(&self, step: u64) -> Result<Vec<String>> {
        let failed = |e| Error::io("read", &self.path, e);
        let mut kept = Vec::new();
        if !self.path.exists() {
            return Ok(kept);
        }
        for line in BufReader::new(File::open(&self.path).map_err(failed)?).lines() {
            let line = line.map_err(failed)?;
            let value: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if value["step"].as_u64().is_some_and(|at| at <= step) {
                kept.push(line);
            }
        }
        Ok(kept)
    }

    fn line(&self, evaluation: &EvaluationInfo<'_>) -> String {
        let EvaluationInfo { observation: o, verdict, .. } = evaluation;
        let checkpoint = evaluation.checkpoint.map(|(path, roles)| Checkpoint {
            file: path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default(),
            roles: roles.names(),
        });
        let line = Line {
            epoch: o.epoch,
            step: o.step,
            train_loss: o.train_loss.map(Number),
            valid_loss: Number(o.valid_loss),
            valid_loss_se: o.standard_error().map(Number),
            lr: o.lr.map(Number),
            elapsed: o.elapsed.map(Number),
            metrics: o
                .metrics
                .iter()
                .map(|(name, &value)| (name.as_str(), Number(value)))
                .collect(),
            resumed: self.resumed,
            monitor: &self.monitor,
            stop: verdict.stop_reason().map(ToString::to_string),
            verdict,
            checkpoint,
            timing: Timing {
                images_per_second: evaluation.images_per_second,
                saving_overhead: evaluation.saving_overhead,
            },
        };
        serde_json::to_string(&line).expect("plain data")
    }
}

impl Callback for JsonLines {
    fn on_start(&mut self, run: &RunInfo) -> Result<()> {
        self.resumed = run.resumed_from.is_some();
        self.monitor.clone_from(&run.monitor);
        let kept = self.lines_until(run.step)?;
        let failed = |e| Error::io("write", &self.path, e);
        let mut file = File::create(&self.path).map_err(failed)?;
        for line in kept {
            writeln!(file, "{line}").map_err(failed)?;
        }
        self.file = Some(file);
        Ok(())
    }

    fn on_evaluation(&mut self, evaluation: &EvaluationInfo<'_>) -> Result<()> {
        let line = self.line(evaluation);
        self.resumed = false;
        let Some(file) = &mut self.file else { return Ok(()) };
        writeln!(file, "{line}").map_err(|e| Error::io("write", &self.path, e))
    }
}
