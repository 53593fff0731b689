//! A log for programs: JSON Lines.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;

use serde::Serialize;

use super::{Callback, EvaluationInfo, RunInfo};
use crate::error::{Error, Result};

/// Writes one JSON object per evaluation to a file.
///
/// When a run is resumed, lines after the point of resumption are dropped first: the log is of
/// one run, however often it was interrupted.
pub struct JsonLines {
    path: PathBuf,
    file: Option<File>,
}

#[derive(Serialize)]
struct Line<'a> {
    epoch: u64,
    step: u64,
    train_loss: Option<f64>,
    valid_loss: f64,
    valid_loss_se: Option<f64>,
    lr: Option<f64>,
    elapsed: Option<f64>,
    #[serde(flatten)]
    metrics: &'a std::collections::BTreeMap<String, f64>,
    new_best: bool,
    patience_left: Option<u32>,
    images_per_second: f64,
}

impl JsonLines {
    /// Logs to the file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        JsonLines { path: path.into(), file: None }
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
}

impl Callback for JsonLines {
    fn on_start(&mut self, run: &RunInfo) -> Result<()> {
        let kept = self.lines_until(run.step)?;
        let failed = |e| Error::io("write", &self.path, e);
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).open(&self.path).map_err(failed)?;
        for line in kept {
            writeln!(file, "{line}").map_err(failed)?;
        }
        self.file = Some(file);
        Ok(())
    }

    fn on_evaluation(&mut self, evaluation: &EvaluationInfo<'_>) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let o = evaluation.observation;
        let line = serde_json::to_string(&Line {
            epoch: o.epoch,
            step: o.step,
            train_loss: o.train_loss,
            valid_loss: o.valid_loss,
            valid_loss_se: o.standard_error(),
            lr: o.lr,
            elapsed: o.elapsed,
            metrics: &o.metrics,
            new_best: evaluation.verdict.new_best,
            patience_left: evaluation.verdict.patience_left,
            images_per_second: evaluation.images_per_second,
        })
        .expect("plain data");
        writeln!(file, "{line}").map_err(|e| Error::io("write", &self.path, e))
    }
}
