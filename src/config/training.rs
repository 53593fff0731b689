//! The tables about training: `[train]`, `[optimizer]`, `[schedule]`, `[monitor]`, `[augment]`,
//! `[run]`.

use std::path::Path;
use std::time::Duration;

use super::RunDir;
use super::document::{Place, Table, Value};
use crate::checkpoint::Retention;
use crate::data::{Augment, HorizontalFlip, RandomShift};
use crate::error::{Error, Result};
use crate::monitor::{EarlyStopping, MinDelta, Mode, VALID_LOSS};
use crate::optim::{
    ConstantLr, CosineAnnealing, ExponentialLr, LinearWarmUp, LrSchedule, MultiStepLr, OneCycle,
    PerStep, ReduceOnPlateau, Sgd, StepLr,
};
use crate::trainer::{DEFAULT_BATCH_SIZE, DEFAULT_EPOCHS, NonFinite, check_metric};

const COUNT: std::ops::Range<u64> = 1..u64::MAX;
const SMALL: std::ops::Range<u64> = 1..1 << 32;

/// The table `[train]`.
pub(super) struct Training {
    pub(super) epochs: u64,
    pub(super) batch_size: usize,
    pub(super) accumulate: usize,
    pub(super) clip_norm: Option<f32>,
    pub(super) clip_value: Option<f32>,
    pub(super) on_non_finite: NonFinite,
    /// Whether values are to be predicted, not classes.
    pub(super) values: bool,
}

impl Training {
    pub(super) fn parse(root: &Table<'_>) -> Result<Self> {
        let mut settings = Training {
            epochs: DEFAULT_EPOCHS,
            batch_size: DEFAULT_BATCH_SIZE,
            accumulate: 1,
            clip_norm: None,
            clip_value: None,
            on_non_finite: NonFinite::Skip,
            values: false,
        };
        let Some(table) = root.get("train") else { return Ok(settings) };
        let table = table.table("[train]")?.only(&[
            "loss",
            "epochs",
            "batch_size",
            "accumulate",
            "clip_grad_norm",
            "clip_grad_value",
            "on_non_finite",
        ])?;
        if let Some(loss) = table.get("loss") {
            settings.values = loss.choice(&[("cross_entropy", false), ("mse", true)])?;
        }
        if let Some(epochs) = table.get("epochs") {
            settings.epochs = epochs.whole(SMALL)?;
        }
        if let Some(size) = table.get("batch_size") {
            settings.batch_size = size.whole(SMALL)?;
        }
        if let Some(batches) = table.get("accumulate") {
            settings.accumulate = batches.whole(1..1 << 20)?;
        }
        let limit = |key| table.get(key).map(|v| v.number("a number above 0", |x| x > 0.0));
        settings.clip_norm = limit("clip_grad_norm").transpose()?;
        settings.clip_value = limit("clip_grad_value").transpose()?;
        if let Some(what) = table.get("on_non_finite") {
            settings.on_non_finite = what.choice(&[
                ("skip", NonFinite::Skip),
                ("roll_back", NonFinite::RollBack),
                ("stop", NonFinite::Stop),
            ])?;
        }
        Ok(settings)
    }
}

/// The table `[optimizer]`.
pub(super) fn optimizer(root: &Table<'_>) -> Result<Sgd> {
    let table = root.need("optimizer", "a table [optimizer] with the learning rate, lr")?;
    let table = table.table("[optimizer]")?.only(&[
        "lr",
        "momentum",
        "dampening",
        "weight_decay",
        "nesterov",
    ])?;
    let lr = table.need("lr", "the learning rate, such as lr = 0.05")?;
    let mut sgd = Sgd::new(lr.number("a number above 0", |x| x > 0.0)?);
    let share =
        |v: Value<'_>| v.number("a number, at least 0 and below 1", |x| (0.0..1.0).contains(&x));
    let mut momentum = 0.0;
    if let Some(value) = table.get("momentum") {
        momentum = share(value)?;
        sgd = sgd.momentum(momentum);
    }
    let dampening = table.get("dampening").map(share).transpose()?.unwrap_or(0.0);
    sgd = sgd.dampening(dampening);
    if let Some(decay) = table.get("weight_decay") {
        sgd = sgd.weight_decay(decay.number("a number, at least 0", |x| x >= 0.0)?);
    }
    if let Some(nesterov) = table.get("nesterov") {
        let on = nesterov.boolean()?;
        if on && (momentum == 0.0 || dampening != 0.0) {
            return Err(nesterov.error("`nesterov` needs a momentum, and no dampening"));
        }
        sgd = sgd.nesterov(on);
    }
    Ok(sgd)
}

/// The table `[schedule]` of a run with these settings.
pub(super) fn schedule(root: &Table<'_>, training: &Training) -> Result<Box<dyn LrSchedule>> {
    let &Training { epochs, values, .. } = training;
    let Some(table) = root.get("schedule") else { return Ok(Box::new(ConstantLr)) };
    let table = table.table("[schedule]")?;
    let kind = table.need("kind", "which one, such as kind = \"step\"")?;
    let kinds: [(&str, &[&str]); 7] = [
        ("constant", &[]),
        ("step", &["every", "gamma", "per_step"]),
        ("multi_step", &["milestones", "gamma", "per_step"]),
        ("exponential", &["gamma", "per_step"]),
        ("cosine", &["period", "min_lr", "restarts", "per_step"]),
        ("one_cycle", &["epochs", "rise"]),
        (
            "reduce_on_plateau",
            &["factor", "patience", "monitor", "mode", "min_delta", "cooldown", "min_lr"],
        ),
    ];
    let options = kind.choice(&kinds)?;
    let name = kind.string("")?;
    let table = table.only(&[&["kind", "warm_up"], options].concat())?;

    let gamma = || -> Result<f32> {
        let what = "the factor of each drop, such as gamma = 0.5";
        table.need("gamma", what)?.number("a number above 0, at most 1", |x| x > 0.0 && x <= 1.0)
    };
    let min_lr = || -> Result<f32> {
        let value = table.get("min_lr").map(|v| v.number("a number, at least 0", |x| x >= 0.0));
        Ok(value.transpose()?.unwrap_or(0.0))
    };
    let count = |key: &str| table.get(key).map(|v| v.whole::<u64>(SMALL)).transpose();
    let per_step = table.get("per_step").map(|v| v.boolean()).transpose()?.unwrap_or(false);
    fn counting<S: LrSchedule + 'static>(schedule: S, per_step: bool) -> Box<dyn LrSchedule> {
        if per_step { Box::new(PerStep(schedule)) } else { Box::new(schedule) }
    }

    let schedule = match name {
        "constant" => Box::new(ConstantLr),
        "step" => {
            let every = table.need("every", "the epochs between drops, such as every = 10")?;
            counting(StepLr::new(every.whole(SMALL)?, gamma()?), per_step)
        }
        "multi_step" => {
            let what = "the epochs of the drops, such as milestones = [10, 20]";
            let list = table.need("milestones", what)?.list(what)?;
            let milestones =
                list.iter().map(|v| v.whole(0..u64::MAX)).collect::<Result<Vec<_>>>()?;
            counting(MultiStepLr::new(milestones, gamma()?), per_step)
        }
        "exponential" => counting(ExponentialLr::new(gamma()?), per_step),
        "cosine" => {
            let mut cosine = CosineAnnealing::new(count("period")?.unwrap_or(epochs), min_lr()?);
            if let Some(factor) = count("restarts")? {
                cosine = cosine.restarts(factor);
            }
            counting(cosine, per_step)
        }
        "one_cycle" => {
            let mut cycle = OneCycle::new(count("epochs")?.unwrap_or(epochs));
            if let Some(rise) = table.get("rise") {
                cycle = cycle.rise(rise.number("a share between 0 and 1", |x| x > 0.0 && x < 1.0)?);
            }
            Box::new(cycle)
        }
        _ => reduce_on_plateau(&table, min_lr()?, values)?,
    };
    let Some(warm_up) = table.get("warm_up") else { return Ok(schedule) };
    let warm_up = warm_up.table("warm_up")?.only(&["steps", "start_factor"])?;
    let steps = warm_up.need("steps", "the steps that the warm-up takes")?.whole(COUNT)?;
    let mut warm = LinearWarmUp::new(steps, schedule);
    if let Some(factor) = warm_up.get("start_factor") {
        let what = "a number above 0, at most 1";
        warm = warm.start_factor(factor.number(what, |x| x > 0.0 && x <= 1.0)?);
    }
    Ok(Box::new(warm))
}

fn reduce_on_plateau(table: &Table<'_>, min_lr: f32, values: bool) -> Result<Box<dyn LrSchedule>> {
    let what = "the factor of each drop, such as factor = 0.5";
    let factor = table.need("factor", what)?;
    let factor = factor.number("a number between 0 and 1", |x| x > 0.0 && x < 1.0)?;
    let what = "the evaluations to wait, such as patience = 3";
    let patience = table.need("patience", what)?.whole(SMALL)?;
    let mut schedule = ReduceOnPlateau::new(factor, patience).min_lr(min_lr);
    let mode = match table.get("mode") {
        Some(mode) => mode.choice(&[("min", Mode::Min), ("max", Mode::Max)])?,
        None => Mode::Min,
    };
    let mut metric = VALID_LOSS;
    if let Some(value) = table.get("monitor") {
        metric = value.string("the name of a metric")?;
        check_metric(metric, values).map_err(|error| value.error(error))?;
    }
    schedule = schedule.monitor(metric, mode);
    if let Some(delta) = table.get("min_delta") {
        let delta = delta.number("a number, at least 0", |x| x >= 0.0)?;
        schedule = schedule.min_delta(MinDelta::Absolute(delta));
    }
    if let Some(cooldown) = table.get("cooldown") {
        schedule = schedule.cooldown(cooldown.whole(SMALL)?);
    }
    Ok(Box::new(schedule))
}

/// The table `[monitor]`; `values` says whether values are to be predicted, not classes.
pub(super) fn monitor(root: &Table<'_>, values: bool) -> Result<EarlyStopping> {
    let Some(table) = root.get("monitor") else { return Ok(EarlyStopping::default()) };
    let table = table.table("[monitor]")?.only(&["rule"])?;
    let what = "a rule, such as rule = \"patience(5)\"";
    let rule = table.need("rule", what)?;
    let parsed = rule.string(what)?.parse::<EarlyStopping>();
    let parsed = parsed.and_then(|spec| spec.check().map(|()| spec));
    let spec = parsed.map_err(|error| match &error {
        Error::Config { reason, .. } => rule.fault_within(reason),
        _ => rule.error(error),
    })?;
    let check = |name| check_metric(name, values);
    spec.metrics().into_iter().try_for_each(check).map_err(|error| rule.error(error))?;
    Ok(spec)
}

/// The table `[augment]`.
pub(super) fn augment(root: &Table<'_>) -> Result<Vec<(Box<dyn Augment>, Place)>> {
    let Some(table) = root.get("augment") else { return Ok(Vec::new()) };
    let table = table.table("[augment]")?.only(&["shift", "flip"])?;
    let mut all: Vec<(Box<dyn Augment>, Place)> = Vec::new();
    if let Some(shift) = table.get("shift") {
        all.push((Box::new(RandomShift { max: shift.whole(1..1 << 12)? }), shift.place()));
    }
    if let Some(flip) = table.get("flip")
        && flip.boolean()?
    {
        all.push((Box::new(HorizontalFlip), flip.place()));
    }
    Ok(all)
}

/// The table `[run]`; without a directory the run goes to `runs/` under the file's own name.
pub(super) fn run_dir(root: &Table<'_>, file: &str, base: &Path) -> Result<RunDir> {
    let stem = Path::new(file).file_stem().unwrap_or_default();
    let mut run = RunDir {
        dir: base.join("runs").join(stem),
        retention: Retention::default(),
        save_every: None,
        progress: 0,
        log: true,
        report: true,
        tensorboard: false,
    };
    let Some(table) = root.get("run") else { return Ok(run) };
    let table = table.table("[run]")?.only(&[
        "dir",
        "keep_last",
        "keep_best",
        "keep_every_epochs",
        "max_bytes",
        "save_every_seconds",
        "progress",
        "log",
        "report",
        "tensorboard",
    ])?;
    if let Some(dir) = table.get("dir") {
        run.dir = base.join(dir.string("the path of a directory")?);
    }
    if let Some(count) = table.get("keep_last") {
        run.retention.last = count.whole(2..1 << 32)?;
    }
    if let Some(count) = table.get("keep_best") {
        run.retention.best = count.whole(1..1 << 32)?;
    }
    let every = table.get("keep_every_epochs").map(|v| v.whole(COUNT));
    run.retention.every_epochs = every.transpose()?;
    run.retention.max_bytes = table.get("max_bytes").map(|v| v.whole(COUNT)).transpose()?;
    if let Some(seconds) = table.get("save_every_seconds") {
        let accept = |x| (0.0..=1e6).contains(&x);
        let seconds = seconds.number::<f64>("a number of seconds, from 0 to a million", accept)?;
        run.save_every = Some(Duration::from_secs_f64(seconds));
    }
    if let Some(steps) = table.get("progress") {
        run.progress = steps.whole(0..u64::MAX)?;
    }
    let switches =
        [("log", &mut run.log), ("report", &mut run.report), ("tensorboard", &mut run.tensorboard)];
    for (key, on) in switches {
        if let Some(value) = table.get(key) {
            *on = value.boolean()?;
        }
    }
    Ok(run)
}
