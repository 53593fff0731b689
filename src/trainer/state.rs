//! Between a run in progress and the [`TrainingState`] of a checkpoint.

use super::Trainer;
use super::fit::Run;
use crate::checkpoint::{
    Cursor, History, NamedTensor, OptimizerState, ScheduleState, TrainingState,
};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::monitor::{EarlyStopping, Observation};
use crate::nn::Module;
use crate::optim::Sgd;
use crate::params::{ParamId, Params};

/// Where a run is: everything random is a function of this and the seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Epochs completed.
    pub(super) epoch: u64,
    /// Steps completed in the current epoch.
    pub(super) batch: u64,
    /// Steps completed in all.
    pub(super) step: u64,
    /// Examples used in all.
    pub(super) samples: u64,
}

impl Position {
    /// The position after a step with so many examples. The end of an epoch and the beginning of
    /// the next are one position.
    pub(super) fn after(self, examples: u64, steps_per_epoch: u64) -> Self {
        let Position { epoch, batch, step, samples } = self;
        let (epoch, batch) =
            if batch + 1 == steps_per_epoch { (epoch + 1, 0) } else { (epoch, batch + 1) };
        Position { epoch, batch, step: step + 1, samples: samples + examples }
    }
}

/// The settings that decide what a step computes. A run can only be resumed with the same ones.
pub(super) fn config<M: Module>(
    trainer: &Trainer<M>,
    train: &dyn Dataset,
    valid: &dyn Dataset,
) -> Vec<(String, String)> {
    let hyper = trainer.optimizer.hyper();
    let optimizer: Vec<String> =
        hyper.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let digest = |data: &dyn Dataset| format!("{:016x}", data.fingerprint());
    let limit = |limit: Option<f32>| limit.map_or("none".to_owned(), |limit| limit.to_string());
    [
        ("architecture", trainer.model.architecture()),
        // What whoever uses the model must know about its inputs and outputs.
        ("input_shape", json(&train.input_shape())),
        ("normalization", json(&train.normalization())),
        ("classes", json(&train.class_names())),
        ("seed", trainer.params.seed().to_string()),
        ("batch_size", trainer.batch_size.to_string()),
        ("accumulate", trainer.accumulate.to_string()),
        ("optimizer", format!("sgd({})", optimizer.join(", "))),
        ("clip_grad_value", limit(trainer.clip_value)),
        ("clip_grad_norm", limit(trainer.clip_norm)),
        ("schedule", trainer.schedule.describe()),
        ("augmentation", format!("{:?}", trainer.augment)),
        ("training data", digest(train)),
        ("validation data", digest(valid)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain data")
}

/// The text that a monitor's specification is saved as.
pub(super) fn monitor_text(spec: &EarlyStopping) -> String {
    serde_json::to_string(spec).expect("a specification is plain data")
}

/// The name under which the number of roll-backs is saved with the schedule: each halves the rate.
const ROLL_BACKS: &str = "roll_backs";

/// The complete state of a run, borrowing its weights.
pub(super) fn capture<'a, M: Module>(run: &'a Run<'_, M>) -> TrainingState<'a> {
    let Trainer { params, optimizer, schedule, .. } = &run.trainer;
    let tensors = |buffers: bool| -> Vec<NamedTensor<'a>> {
        let tensor = |id| NamedTensor::new(params.name(id), shape(params, id), params.get(id));
        params.ids().filter(|&id| params.is_buffer(id) == buffers).map(tensor).collect()
    };
    let history = run.monitor.history();
    let milliseconds = |seconds: f64| (seconds * 1e3).round() as u64;
    let clock = history.iter().filter_map(|o| o.elapsed).chain([run.clock.elapsed()]);
    let clock: Vec<u64> = clock.map(milliseconds).collect();
    TrainingState {
        config: [&run.config[..], &run.trainer.notes].concat(),
        params: tensors(false),
        buffers: tensors(true),
        optimizer: OptimizerState {
            kind: "sgd".into(),
            hyper: optimizer
                .hyper()
                .into_iter()
                .map(|(name, value)| (name.into(), value))
                .collect(),
            slots: match optimizer.velocity() {
                [] => Vec::new(),
                velocity => slots(params, velocity),
            },
        },
        schedule: ScheduleState {
            spec: schedule.describe(),
            values: vec![(ROLL_BACKS.to_owned(), f64::from(run.roll_backs))],
        },
        cursor: Cursor {
            seed: params.seed(),
            epoch: run.position.epoch,
            step: run.position.step,
            position: run.position.batch,
            samples: run.position.samples,
        },
        monitor: monitor_text(run.monitor.spec()),
        history: table(history),
        // A history that was recorded without a clock has none.
        clock: if clock.len() == history.len() + 1 { clock } else { Vec::new() },
    }
}

/// An array in the layout of [`Params::flat`] as the momentum of each parameter.
pub(super) fn slots<'a>(params: &Params, velocity: &'a [f32]) -> Vec<NamedTensor<'a>> {
    let slot = |id| {
        let name = format!("{}.momentum", params.name(id));
        NamedTensor::new(name, shape(params, id), &velocity[params.range(id)])
    };
    params.ids().filter(|&id| !params.is_buffer(id)).map(slot).collect()
}

fn shape(params: &Params, id: ParamId) -> Vec<usize> {
    params.shape(id).to_vec()
}

/// What [`restore`] gives besides weights and velocity.
pub(super) struct Restored {
    pub(super) position: Position,
    pub(super) history: Vec<Observation>,
    pub(super) roll_backs: u32,
    /// Seconds of training.
    pub(super) elapsed: f64,
}

/// Puts a saved state into a run, after checking that it belongs to it.
pub(super) fn restore(
    state: &TrainingState<'_>,
    config: &[(String, String)],
    params: &mut Params,
    optimizer: &mut Sgd,
) -> Result<Restored> {
    for (key, now) in config {
        match state.config(key) {
            Some(saved) if saved == now => {}
            saved => {
                let saved = saved.unwrap_or("not recorded");
                let reason = format!(
                    "the saved run has {saved}, this one {now}; a resumed run must continue with \
                     the same"
                );
                return Err(Error::config(key.clone(), reason));
            }
        }
    }
    state.load_into(params)?;
    let slots = &state.optimizer.slots;
    let mut velocity = vec![0.0; if slots.is_empty() { 0 } else { params.flat().len() }];
    for slot in slots {
        let id = slot.name.strip_suffix(".momentum").and_then(|name| params.id(name));
        let fits = |&id: &ParamId| !params.is_buffer(id) && shape(params, id) == slot.shape;
        match id.filter(fits) {
            Some(id) => velocity[params.range(id)].copy_from_slice(&slot.data),
            None => {
                return Err(Error::config(&slot.name, "momentum of no parameter of this model"));
            }
        }
    }
    optimizer.set_velocity(velocity);
    let number = |list: &[(String, f64)], name: &str| {
        list.iter().find(|(key, _)| key == name).map(|&(_, value)| value)
    };
    // An evaluation that is still owed records the rate of the last update, not of the next one.
    if let Some(lr) = number(&state.optimizer.hyper, "lr") {
        optimizer.lr = lr as f32;
    }
    let Cursor { epoch, step, position, samples, .. } = state.cursor;
    Ok(Restored {
        position: Position { epoch, batch: position, step, samples },
        history: recorded_history(state),
        roll_backs: number(&state.schedule.values, ROLL_BACKS).unwrap_or(0.0) as u32,
        elapsed: state.clock.last().map_or(0.0, |&now| now as f64 / 1e3),
    })
}

/// The history as the table that is saved. Absent values are absent cells (NaN).
fn table(history: &[Observation]) -> History {
    let mut table = History::default();
    for o in history {
        let mut values = vec![("valid_loss", o.valid_loss)];
        let optional =
            [("train_loss", o.train_loss), ("valid_loss_se", o.valid_loss_se), ("lr", o.lr)];
        values.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
        values.extend(o.metrics.iter().map(|(name, &value)| (name.as_str(), value)));
        table.push(o.epoch, o.step, &values, &o.example_losses);
    }
    table
}

/// The evaluations that a saved run has made, oldest first.
pub fn recorded_history(state: &TrainingState<'_>) -> Vec<Observation> {
    let table = &state.history;
    let rows = (0..table.rows()).map(|row| {
        let mut o = Observation::new(table.epochs[row], f64::NAN);
        o.step = table.steps[row];
        o.elapsed = state.clock.get(row).map(|&at| at as f64 / 1e3);
        o.example_losses = table.samples_of(row).to_vec();
        for (name, &value) in table.columns.iter().zip(table.row(row)) {
            match name.as_str() {
                "valid_loss" => o.valid_loss = value,
                "train_loss" => o.train_loss = Some(value),
                "valid_loss_se" => o.valid_loss_se = Some(value),
                "lr" => o.lr = Some(value),
                _ => drop(o.metrics.insert(name.clone(), value)),
            }
        }
        o
    });
    rows.collect()
}
