//! `ferrotape diff`: what changed from one checkpoint to another.

use std::fmt::Display;

use ferrotape::Result;
use ferrotape::checkpoint::{CheckpointFile, Role, TensorInfo};
use ferrotape::numbers::setting;
use serde_json::{Value, json};

use super::output::{Output, Table, lower, or_dash};
use super::{Arguments, Command, Exit, source};

pub(crate) const COMMAND: Command = Command {
    name: "diff",
    summary: "which tensors and settings differ between two checkpoints, and by how much",
    help: "\
Compares two checkpoints: position, configuration, settings, history, and every tensor. For those
that differ it gives the largest difference of two elements and the relative change, that is the
Euclidean norm of the difference divided by that of the first tensor.

Usage: ferrotape diff FILE|RUN_DIR FILE|RUN_DIR

      --best      of a run: the checkpoint with the best metric, not the newest
      --all       list the tensors that are equal, too

Exit code 1 if the two states differ; then so do their digests.
",
    run,
};

fn run(mut arguments: Arguments, out: &mut Output) -> Result<bool, Exit> {
    let (mut best, mut all) = (false, false);
    while let Some(option) = arguments.option()? {
        match option.as_str() {
            "best" => best = true,
            "all" => all = true,
            _ => return arguments.unknown(&option),
        }
    }
    let [a, b] = arguments.operands(["FILE|RUN_DIR", "FILE|RUN_DIR"])?;
    let (a, b) = (source::open(a, best)?, source::open(b, best)?);
    let settings = settings(&a, &b);
    let tensors = tensors(&a, &b)?;
    let same = a.digest() == b.digest();
    let changed = |tensor: &&Change| tensor.what != "equal";
    if arguments.json {
        let tensors = tensors.iter().filter(|tensor| all || changed(tensor));
        out.json(&json!({
            "same": same, "digests": [a.digest(), b.digest()],
            "settings": settings.iter().map(|(name, a, b)| json!({ "name": name, "a": a, "b": b }))
                .collect::<Vec<_>>(),
            "tensors": tensors.map(Change::json).collect::<Vec<_>>(),
        }));
        return Ok(same);
    }
    for (name, a, b) in &settings {
        out.line(format!("{name}: {} -> {}", or_dash(a.as_ref()), or_dash(b.as_ref())));
    }
    let mut table =
        Table::new(&["role", "name", "shape", ">max difference", ">relative change", "what"]);
    let shown: Vec<&Change> = tensors.iter().filter(|tensor| all || changed(tensor)).collect();
    for tensor in &shown {
        let number = |x: Option<f64>| or_dash(x.map(|x| format!("{x:.3e}")));
        table.row([
            lower(tensor.role),
            tensor.name.clone(),
            format!("{:?}", tensor.shape),
            number(tensor.max),
            number(tensor.relative),
            tensor.what.clone(),
        ]);
    }
    if !shown.is_empty() {
        table.print(out);
    }
    out.line(match same {
        true => format!("the same state, digest {}", a.digest()),
        false => format!(
            "{} of {} tensors differ",
            tensors.iter().filter(changed).count(),
            tensors.len()
        ),
    });
    Ok(same)
}

/// A setting by name, before and after.
type Setting = (String, Option<String>, Option<String>);

/// The settings that are not equal.
fn settings(a: &CheckpointFile, b: &CheckpointFile) -> Vec<Setting> {
    let mut differ = Vec::new();
    let mut compare = |name: &str, a: Option<&dyn Display>, b: Option<&dyn Display>| {
        let (a, b) = (a.map(|a| a.to_string()), b.map(|b| b.to_string()));
        if a != b {
            differ.push((name.to_owned(), a, b));
        }
    };
    let (old, new) = (a.metadata(), b.metadata());
    let (x, y) = (a.cursor(), b.cursor());
    compare("seed", Some(&x.seed), Some(&y.seed));
    compare("epoch", Some(&x.epoch), Some(&y.epoch));
    compare("batch", Some(&x.position), Some(&y.position));
    compare("step", Some(&x.step), Some(&y.step));
    compare("examples", Some(&x.samples), Some(&y.samples));
    compare("optimizer", Some(&old.optimizer.kind), Some(&new.optimizer.kind));
    compare("schedule", Some(&old.schedule.spec), Some(&new.schedule.spec));
    compare("monitor", Some(&old.monitor), Some(&new.monitor));
    let columns = |file: &CheckpointFile| file.metadata().history.columns.join(", ");
    compare("history columns", Some(&columns(a)), Some(&columns(b)));
    compare("evaluations", Some(&evaluations(a)), Some(&evaluations(b)));
    keyed("config", &old.config, &new.config, &mut compare);
    let numbers = |list: &[(String, f64)]| -> Vec<(String, String)> {
        list.iter().map(|(name, value)| (name.clone(), setting(*value))).collect()
    };
    let [hyper, values] = [
        [&old.optimizer.hyper, &new.optimizer.hyper].map(|list| numbers(list)),
        [&old.schedule.values, &new.schedule.values].map(|list| numbers(list)),
    ];
    keyed("optimizer", &hyper[0], &hyper[1], &mut compare);
    keyed("schedule", &values[0], &values[1], &mut compare);
    differ
}

/// How many rows the history has; every history has the four tensors that it is stored as.
fn evaluations(file: &CheckpointFile) -> usize {
    let mut tensors = file.tensors().iter();
    tensors.find(|info| info.role == Role::History).map_or(0, |info| info.shape[0])
}

/// Compares two lists of named values.
fn keyed(
    group: &str,
    a: &[(String, String)],
    b: &[(String, String)],
    compare: &mut impl FnMut(&str, Option<&dyn Display>, Option<&dyn Display>),
) {
    fn find<'l>(list: &'l [(String, String)], key: &str) -> Option<&'l dyn Display> {
        list.iter().find(|(name, _)| name == key).map(|(_, value)| value as &dyn Display)
    }
    let only_new = b.iter().filter(|(key, _)| find(a, key).is_none());
    for (key, _) in a.iter().chain(only_new) {
        compare(&format!("{group} {key}"), find(a, key), find(b, key));
    }
}

/// What became of one tensor.
struct Change {
    role: Role,
    name: String,
    shape: Vec<usize>,
    /// The largest difference of two elements.
    max: Option<f64>,
    /// The norm of the difference divided by the norm of the first tensor.
    relative: Option<f64>,
    what: String,
}

impl Change {
    fn new(info: &TensorInfo, what: impl Into<String>) -> Self {
        let TensorInfo { role, name, shape, .. } = info.clone();
        Change { role, name, shape, max: None, relative: None, what: what.into() }
    }

    fn json(&self) -> Value {
        json!({
            "role": lower(self.role), "name": self.name, "shape": self.shape, "max": self.max,
            "relative": self.relative, "what": self.what,
        })
    }
}

fn tensors(a: &CheckpointFile, b: &CheckpointFile) -> Result<Vec<Change>> {
    let find = |file: &CheckpointFile, info: &TensorInfo| {
        let mut tensors = file.tensors().iter();
        tensors.find(|other| (other.role, &other.name) == (info.role, &info.name)).cloned()
    };
    let mut changes = Vec::new();
    for info in a.tensors() {
        changes.push(match find(b, info) {
            // A longer history is no change of its tensors; its length is among the settings.
            Some(other) if info.role == Role::History && other.shape != info.shape => continue,
            None => Change::new(info, "only in the first"),
            Some(other) if other.shape != info.shape => {
                Change::new(info, format!("shape {:?} in the second", other.shape))
            }
            Some(other) if other.checksum == info.checksum => Change::new(info, "equal"),
            Some(_) if info.role == Role::History => Change::new(info, "differs"),
            Some(_) => {
                let (x, y) =
                    (a.read_tensor(info.role, &info.name)?, b.read_tensor(info.role, &info.name)?);
                let (max, relative) = distance(&x.data, &y.data);
                let (max, relative) = (Some(max), Some(relative));
                Change { max, relative, ..Change::new(info, "differs") }
            }
        });
    }
    let only_new = b.tensors().iter().filter(|info| find(a, info).is_none());
    changes.extend(only_new.map(|info| Change::new(info, "only in the second")));
    Ok(changes)
}

/// The largest difference and the relative change from `x` to `y`. NaN if either has one.
fn distance(x: &[f32], y: &[f32]) -> (f64, f64) {
    let (mut max, mut change, mut norm) = (0.0_f64, 0.0, 0.0);
    for (&x, &y) in x.iter().zip(y) {
        let difference = (f64::from(y) - f64::from(x)).abs();
        // f64::max would forget a NaN.
        max = if difference > max || difference.is_nan() { difference } else { max };
        change += difference * difference;
        norm += f64::from(x) * f64::from(x);
    }
    // From 0 to -0 nothing has changed, and 0 / 0 is not that.
    (max, if change == 0.0 { 0.0 } else { (change / norm).sqrt() })
}
