//! A log for programs: JSON Lines. `docs/log-format.md` describes it key by key.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use super::append::Append;
use super::{Callback, EndInfo, EvaluationInfo, RunInfo};
use crate::checkpoint::write_atomically;
use crate::error::{Error, Result};
use crate::monitor::{Monitor, Observation, Verdict};

/// Writes one JSON object per evaluation to a file.
///
/// When a run is resumed, lines after the point of resumption are dropped first, and those that a
/// crash has kept from being written are added: the log is of one run, however often it was
/// interrupted.
///
/// The log always ends with a whole line. If one cannot be written, because the disk is full, that
/// is a warning of the run; it is kept in memory and written with the next, or at the end.
pub struct JsonLines {
    path: PathBuf,
    file: Option<Append>,
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
    timing: Option<Timing>,
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
    /// What the log in a run directory is called by the command line, and where
    /// [`Report`](crate::report::Report) looks for it.
    pub const FILE_NAME: &str = "log.jsonl";

    /// Logs to the file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        JsonLines { path: path.into(), file: None, resumed: false, monitor: String::new() }
    }

    /// Makes an existing log that of the run so far: without lines after it and what is not a line,
    /// and with those of its history that a crash has kept from being written. What is no regular
    /// file, such as a terminal, is left alone.
    fn continue_from(&self, run: &RunInfo) -> Result<()> {
        let old = match fs::metadata(&self.path) {
            Ok(found) if !found.is_file() => return Ok(()),
            Ok(_) => fs::read(&self.path).map_err(|e| Error::io("read", &self.path, e))?,
            Err(_) => Vec::new(),
        };
        let mut lines = BTreeMap::new();
        for line in old.split(|&byte| byte == b'\n') {
            let value: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
            if let Some(step) = value["step"].as_u64().filter(|&step| step <= run.step) {
                lines.insert(step, line.to_vec());
            }
        }
        if !run.history.is_empty() {
            let mut monitor = Monitor::new(run.monitor.parse()?)?;
            for seen in &run.history {
                let verdict = monitor.observe(seen.clone());
                let line = || self.line(seen, &verdict, false, None, None).into_bytes();
                lines.entry(seen.step).or_insert_with(line);
            }
        }
        let new: Vec<u8> =
            lines.into_values().flat_map(|line| [line, vec![b'\n']].concat()).collect();
        if new == old {
            return Ok(());
        }
        write_atomically(&self.path, |file| file.write_all(&new))
    }

    fn line(
        &self,
        o: &Observation,
        verdict: &Verdict,
        resumed: bool,
        checkpoint: Option<Checkpoint<'_>>,
        timing: Option<Timing>,
    ) -> String {
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
            resumed,
            monitor: &self.monitor,
            stop: verdict.stop_reason().map(ToString::to_string),
            verdict,
            checkpoint,
            timing,
        };
        serde_json::to_string(&line).expect("plain data")
    }
}

impl Callback for JsonLines {
    fn on_start(&mut self, run: &RunInfo) -> Result<()> {
        self.resumed = run.resumed_from.is_some();
        self.monitor.clone_from(&run.monitor);
        self.continue_from(run)?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&self.path);
        let file = file.map_err(|e| Error::io("open", &self.path, e))?;
        self.file = Some(Append::new(&self.path, file));
        Ok(())
    }

    fn on_evaluation(&mut self, evaluation: &EvaluationInfo<'_>) -> Result<()> {
        let checkpoint = evaluation.checkpoint.map(|(path, roles)| Checkpoint {
            file: path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default(),
            roles: roles.names(),
        });
        let timing = Some(Timing {
            images_per_second: evaluation.images_per_second,
            saving_overhead: evaluation.saving_overhead,
        });
        let EvaluationInfo { observation, verdict, .. } = evaluation;
        let line = self.line(observation, verdict, self.resumed, checkpoint, timing) + "\n";
        self.resumed = false;
        self.file.as_mut().map_or(Ok(()), |file| file.add(line.as_bytes()))
    }

    fn on_end(&mut self, _end: &EndInfo<'_>) -> Result<()> {
        self.file.as_mut().map_or(Ok(()), Append::finish)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn at_step(step: u64) -> RunInfo {
        RunInfo {
            resumed_from: Some("run".into()),
            notes: Vec::new(),
            epoch: 0,
            step,
            history: Vec::new(),
            steps_per_epoch: 1,
            train_examples: 1,
            valid_examples: 1,
            epochs: 1,
            monitor: String::new(),
        }
    }

    #[test]
    fn a_resumed_log_is_cut_as_a_whole_or_not_at_all() {
        let dir = std::env::temp_dir().join(format!("ferrotape-jsonl-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join(JsonLines::FILE_NAME);
        // Damaged lines, one from after the checkpoint, and a last one without its end.
        let kept = b"{\"step\":4}\n{\"step\":8}\n";
        let old = b"{\"step\":4}\n{\"step\":\xff}\n\n{\"step\":12}\n{\"step\":8}";
        fs::write(&path, old).unwrap();

        // Whoever had the old file open still has all of it: it was replaced, not overwritten.
        let mut before = fs::File::open(&path).unwrap();
        let mut log = JsonLines::new(&path);
        log.on_start(&at_step(8)).unwrap();
        let mut found = Vec::new();
        before.read_to_end(&mut found).unwrap();
        assert_eq!(found, old);
        assert_eq!(fs::read(&path).unwrap(), kept);

        // With nothing to be cut it is only added to, even if another run opens it.
        let mut after = fs::File::open(&path).unwrap();
        let mut log = JsonLines::new(&path);
        log.on_start(&at_step(9)).unwrap();
        log.file.as_mut().unwrap().add(b"{\"step\":12}\n").unwrap();
        let mut found = Vec::new();
        after.read_to_end(&mut found).unwrap();
        assert_eq!(found, [&kept[..], b"{\"step\":12}\n"].concat());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "no temporary file is left");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_line_that_a_crash_has_kept_from_being_written_is_made_from_the_history() {
        let dir = std::env::temp_dir().join(format!("ferrotape-gap-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join(JsonLines::FILE_NAME);
        fs::write(&path, b"{\"step\":4}\n{\"step\":12}\n").unwrap();
        let seen = |epoch, loss| Observation { step: 4 * epoch, ..Observation::new(epoch, loss) };
        let history = vec![seen(1, 0.5), seen(2, f64::NAN), seen(3, 0.25)];
        let monitor = "patience(2)".to_owned();
        let run = RunInfo { history: history.clone(), monitor, ..at_step(12) };
        JsonLines::new(&path).on_start(&run).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[2]), (3, "{\"step\":4}", "{\"step\":12}"));
        let made: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
        assert_eq!((&made["step"], &made["valid_loss"]), (&8.into(), &"NaN".into()));
        assert_eq!(made["verdict"]["best"]["epoch"], 1);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_an_error_before_the_first_step() {
        let missing = std::env::temp_dir().join("ferrotape-there-is-no-such-directory/log");
        let error = JsonLines::new(missing).on_start(&at_step(0)).unwrap_err();
        assert!(error.to_string().contains("cannot open"), "{error}");
    }
}
