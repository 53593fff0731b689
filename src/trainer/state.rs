//! Between a run in progress and the [`TrainingState`] of a checkpoint.

use super::Trainer;
use crate::checkpoint::{
    Cursor, History, NamedTensor, OptimizerState, ScheduleState, TrainingState,
};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::monitor::{EarlyStopping, Monitor, Observation};
use crate::nn::Module;
use crate::optim::{LrSchedule, Sgd};
use crate::params::Params;

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
    [
        ("architecture", trainer.model.architecture()),
        ("seed", trainer.params.seed().to_string()),
        ("batch_size", trainer.batch_size.to_string()),
        ("optimizer", format!("sgd({})", optimizer.join(", "))),
        ("schedule", trainer.schedule.describe()),
        ("augmentation", format!("{:?}", trainer.augment)),
        ("training data", digest(train)),
        ("validation data", digest(valid)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}

/// The text that a monitor's specification is saved as.
pub(super) fn monitor_text(spec: &EarlyStopping) -> String {
    serde_json::to_string(spec).expect("a specification is plain data")
}

/// The complete state of a run, borrowing its weights.
pub(super) fn capture<'a>(
    config: &[(String, String)],
    params: &'a Params,
    optimizer: &'a Sgd,
    schedule: &dyn LrSchedule,
    position: &Position,
    monitor: &Monitor,
) -> TrainingState<'a> {
    let named =
        |id, name: String, data: &'a [f32]| NamedTensor::new(name, params.shape(id).to_vec(), data);
    let stored = |buffers: bool| -> Vec<NamedTensor<'a>> {
        let ids = params.ids().filter(|&id| params.is_buffer(id) == buffers);
        ids.map(|id| named(id, params.name(id).to_owned(), params.get(id))).collect()
    };
    let velocity = optimizer.velocity();
    TrainingState {
        config: config.to_vec(),
        params: stored(false),
        buffers: stored(true),
        optimizer: OptimizerState {
            kind: "sgd".into(),
            hyper: optimizer
                .hyper()
                .into_iter()
                .map(|(name, value)| (name.into(), value))
                .collect(),
            slots: match velocity {
                [] => Vec::new(),
                _ => {
                    let ids = params.ids().filter(|&id| !params.is_buffer(id));
                    let momentum = |id| format!("{}.momentum", params.name(id));
                    ids.map(|id| named(id, momentum(id), &velocity[params.range(id)])).collect()
                }
            },
        },
        schedule: ScheduleState { spec: schedule.describe(), values: Vec::new() },
        cursor: Cursor {
            seed: params.seed(),
            epoch: position.epoch,
            step: position.step,
            position: position.batch,
            samples: position.samples,
        },
        monitor: monitor_text(monitor.spec()),
        history: table(monitor.history()),
        clock: Vec::new(),
    }
}

/// What [`restore`] gives besides weights and velocity.
pub(super) struct Restored {
    pub(super) position: Position,
    pub(super) history: Vec<Observation>,
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
    let mut velocity =
        vec![0.0; if state.optimizer.slots.is_empty() { 0 } else { params.flat().len() }];
    for slot in &state.optimizer.slots {
        let id = slot.name.strip_suffix(".momentum").and_then(|name| params.id(name));
        match id.filter(|&id| params.shape(id).to_vec() == slot.shape) {
            Some(id) => velocity[params.range(id)].copy_from_slice(&slot.data),
            None => {
                return Err(Error::config(&slot.name, "momentum of no parameter of this model"));
            }
        }
    }
    optimizer.set_velocity(velocity);
    // An evaluation that is still owed records the rate of the last update, not of the next one.
    if let Some((_, lr)) = state.optimizer.hyper.iter().find(|(name, _)| name == "lr") {
        optimizer.lr = *lr as f32;
    }
    let Cursor { epoch, step, position, samples, .. } = state.cursor;
    let position = Position { epoch, batch: position, step, samples };
    Ok(Restored { position, history: recorded_history(state) })
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
