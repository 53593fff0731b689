//! `ferrotape inspect`: what is in a checkpoint.

use std::fmt::Display;

use ferrotape::checkpoint::{CheckpointFile, History, Role, TensorInfo};
use ferrotape::numbers::{setting, size};
use serde_json::{Map, Value, json};

use super::output::{Output, Table, lower, number};
use super::{Arguments, Command, Exit, source};

pub(crate) const COMMAND: Command = Command {
    name: "inspect",
    summary: "what is in a checkpoint: configuration, position, tensors, history",
    help: "\
Shows what a checkpoint holds: where it comes from, configuration, position in the run, the shapes
of its tensors and its last evaluations.

Usage: ferrotape inspect FILE|RUN_DIR

      --best      of a run: the checkpoint with the best metric, not the newest
      --history N the last N evaluations (5; all with --json)
",
    run,
};

fn run(mut arguments: Arguments, out: &mut Output) -> Result<bool, Exit> {
    let (mut best, mut tail) = (false, None);
    while let Some(option) = arguments.option()? {
        match option.as_str() {
            "best" => best = true,
            "history" => tail = Some(arguments.value()?),
            _ => return arguments.unknown(&option),
        }
    }
    let [path] = arguments.operands(["FILE|RUN_DIR"])?;
    let file = source::open(path, best)?;
    let history = file.read_history()?;
    if arguments.json {
        out.json(&document(&file, &history, tail.unwrap_or(usize::MAX)));
    } else {
        print(&file, out);
        tensors(&file, out);
        evaluations(&history, tail.unwrap_or(5), out);
    }
    Ok(true)
}

fn document(file: &CheckpointFile, history: &History, tail: usize) -> Value {
    let (state, cursor) = (file.metadata(), file.cursor());
    let tensor = |info: &TensorInfo| {
        json!({
            "role": lower(info.role), "name": info.name, "dtype": lower(info.dtype),
            "shape": info.shape, "bytes": info.bytes,
        })
    };
    let evaluation = |row: usize| {
        let mut cells = Map::new();
        cells.extend(
            history.columns.iter().cloned().zip(history.row(row).iter().map(|&x| json!(x))),
        );
        cells.insert("epoch".into(), json!(history.epochs[row]));
        cells.insert("step".into(), json!(history.steps[row]));
        Value::Object(cells)
    };
    let first = history.rows().saturating_sub(tail);
    let monitor = serde_json::from_str(&state.monitor).unwrap_or_else(|_| json!(state.monitor));
    json!({
        "path": file.path().to_string_lossy(), "bytes": file.bytes(), "writer": file.writer(),
        "generation": file.generation(), "digest": file.digest(),
        "metric": file.metric().map(|m| json!({ "name": m.name, "value": m.value })),
        "seed": cursor.seed, "epoch": cursor.epoch, "step": cursor.step,
        "position": cursor.position, "samples": cursor.samples,
        "config": object(&state.config),
        "optimizer": state.optimizer.kind, "schedule": state.schedule.spec,
        "hyper": object(&state.optimizer.hyper), "schedule_state": object(&state.schedule.values),
        "monitor": monitor,
        "tensors": file.tensors().iter().map(tensor).collect::<Vec<_>>(),
        "history": (first..history.rows()).map(evaluation).collect::<Vec<_>>(),
    })
}

fn object<T: Clone + Into<Value>>(pairs: &[(String, T)]) -> Map<String, Value> {
    pairs.iter().cloned().map(|(name, value)| (name, value.into())).collect()
}

fn print(file: &CheckpointFile, out: &mut Output) {
    let (state, cursor) = (file.metadata(), file.cursor());
    let mut field = |name: &str, value: &dyn Display| out.line(format!("{name:<11} {value}"));
    field("file", &format!("{}, {}", file.path().display(), size(file.bytes())));
    field("written by", &file.writer());
    field("generation", &file.generation());
    field("digest", &file.digest());
    if let Some(metric) = file.metric() {
        field("metric", &format!("{} = {}", metric.name, metric.value));
    }
    let position = format!(
        "epoch {}, batch {}, step {}, {} examples",
        cursor.epoch, cursor.position, cursor.step, cursor.samples
    );
    field("position", &position);
    field("seed", &cursor.seed);
    let numbers = |numbers: &[(String, f64)]| {
        numbers
            .iter()
            .map(|(name, value)| format!(" {name}={}", setting(*value)))
            .collect::<String>()
    };
    field("optimizer", &(state.optimizer.kind.clone() + &numbers(&state.optimizer.hyper)));
    field("schedule", &(state.schedule.spec.clone() + &numbers(&state.schedule.values)));
    field("monitor", &state.monitor);
    for (key, value) in &state.config {
        // A text of many lines stays in its column.
        let value = value.replace('\n', "\n            ");
        field("config", &format!("{key} = {value}"));
    }
}

fn tensors(file: &CheckpointFile, out: &mut Output) {
    out.block("\n");
    let mut table = Table::new(&["role", "name", "type", "shape", ">size"]);
    let of_model = || file.tensors().iter().filter(|info| info.role != Role::History);
    for TensorInfo { role, dtype, name, shape, bytes, .. } in of_model() {
        let shape = format!("{shape:?}");
        table.row([lower(role), name.clone(), lower(dtype), shape, size(*bytes)]);
    }
    table.print(out);
    let params = || of_model().filter(|info| info.role == Role::Param);
    let weights: u64 = params().map(|info| info.bytes / info.dtype.size()).sum();
    out.line(format!("{} parameters with {weights} weights", params().count()));
}

fn evaluations(history: &History, tail: usize, out: &mut Output) {
    let rows = history.rows();
    let tail = tail.min(rows);
    if tail == 0 {
        return;
    }
    out.line(format!("\nthe last {tail} of {rows} evaluations"));
    let columns = history.columns.iter().map(|column| format!(">{column}"));
    let headings: Vec<String> =
        [">epoch".to_owned(), ">step".to_owned()].into_iter().chain(columns).collect();
    let mut table = Table::new(&headings.iter().map(String::as_str).collect::<Vec<_>>());
    for row in rows - tail..rows {
        let cells = history.row(row).iter().map(|&x| number(x));
        let place = [history.epochs[row].to_string(), history.steps[row].to_string()];
        table.row(place.into_iter().chain(cells));
    }
    table.print(out);
}
