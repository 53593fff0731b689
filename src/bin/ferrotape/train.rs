//! `ferrotape train`: a run that a file describes.

use std::path::PathBuf;

use ferrotape::checkpoint::Checkpoints;
use ferrotape::config::{Part, RunConfig, RunDir};
use ferrotape::data::Dataset;
use ferrotape::nn::{Module, Sequential};
use ferrotape::numbers::percent;
use ferrotape::report::HtmlReport;
use ferrotape::trainer::{
    Evaluation, Interrupt, JsonLines, Outcome, Progress, Resume, Stop, TensorBoard, Trainer,
    evaluate,
};
use ferrotape::{Error, Params};
use serde_json::json;

use super::output::{Output, number};
use super::{Arguments, Command, Exit};

pub(crate) const COMMAND: Command = Command {
    name: "train",
    summary: "train the model that a file describes",
    help: "\
Trains the model that a TOML file describes, on data from local files, until its stopping rule says
so; saves checkpoints; and at the end measures the best weights on the test part of the data.

Usage: ferrotape train FILE.toml [OPTIONS]

      --check         read the file and the data, show the model and what looks wrong; train nothing
      --resume        go on with the run that is in the run directory, if there is one
      --run-dir DIR   another directory than the file says
      --epochs N      another largest number of epochs
      --threads N     how many threads compute; the result is the same for any number

Exits with 1 if the loss was not finite or the disk had no room for the end of the run, and with
130 or 143 if a signal interrupted it. docs/train.md lists what the file may say.
",
    run,
};

#[derive(Default)]
struct Options {
    check: bool,
    resume: bool,
    run_dir: Option<PathBuf>,
    epochs: Option<u64>,
    threads: Option<usize>,
}

fn run(mut arguments: Arguments, out: &mut Output) -> Result<bool, Exit> {
    let mut options = Options::default();
    while let Some(option) = arguments.option()? {
        match option.as_str() {
            "check" => options.check = true,
            "resume" => options.resume = true,
            "run-dir" => options.run_dir = Some(arguments.path()?),
            "epochs" => options.epochs = Some(arguments.value()?),
            "threads" => options.threads = Some(arguments.value()?),
            _ => return arguments.unknown(&option),
        }
    }
    let [path] = arguments.operands(["FILE.toml"])?;
    if options.epochs == Some(0) {
        return Err(Exit::Usage("--epochs 0: expected at least 1".into()));
    }
    if let Some(threads) = options.threads {
        if !(1..=1024).contains(&threads) {
            return Err(Exit::Usage(format!("--threads {threads}: expected 1 to 1024")));
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        pool.map_err(|error| Error::config("--threads", error.to_string()))?;
    }
    let mut config = RunConfig::read(path)?;
    if let Some(epochs) = options.epochs {
        config = config.epochs(epochs);
    }
    config.run.dir = options.run_dir.unwrap_or(config.run.dir);
    let data = config.load()?;
    let [train, valid] = [Part::Train, Part::Valid].map(|part| data.part(part).expect("is there"));
    let test = data.part(Part::Test);
    if options.check {
        let (model, params) = config.model(&data)?;
        let warnings = config.trainer(&data)?.warnings();
        let parts = [Some(&train), Some(&valid), test.as_ref()];
        check(&model, &params, parts, &warnings, out, arguments.json)?;
        return Ok(true);
    }

    let dir = config.run.dir.clone();
    let retention = config.run.retention.clone();
    let RunDir { progress, log, report, tensorboard, .. } = config.run;
    let mut trainer = config
        .trainer(&data)?
        .checkpoints(Checkpoints::open(&dir)?.retention(retention))
        .resume(if options.resume { Resume::Auto } else { Resume::Never })
        .interrupt(interrupt()?);
    drop(data);
    if !arguments.json {
        let every = if progress == 0 { u64::MAX } else { progress };
        trainer = trainer.callback(Progress::new(every));
    }
    if log {
        trainer = trainer.callback(JsonLines::new(dir.join(JsonLines::FILE_NAME)));
    }
    if tensorboard {
        trainer = trainer.callback(TensorBoard::new(dir.join("tensorboard")));
    }
    if report {
        trainer = trainer.callback(HtmlReport::new(dir.join("report.html")));
    }
    finish(
        trainer,
        [&train, &valid],
        test.as_ref().map(|test| test as &dyn Dataset),
        out,
        arguments.json,
    )
}

/// Trains, and says what came of it.
fn finish(
    trainer: Trainer<Sequential>,
    [train, valid]: [&dyn Dataset; 2],
    test: Option<&dyn Dataset>,
    out: &mut Output,
    as_json: bool,
) -> Result<bool, Exit> {
    let outcome = trainer.fit(train, valid)?;
    let interrupted = matches!(outcome.stop, Stop::Interrupted(_));
    // Whoever interrupts does not want to wait, and the run is not over.
    let test = test.filter(|_| !interrupted);
    let tested = test.map(|test| evaluate(&outcome.model, &outcome.params, test));
    let Outcome { stop, best, history, steps, digest, best_checkpoint, warnings, .. } = &outcome;
    if as_json {
        out.json(&json!({
            "stop": stop.to_string(),
            "epochs": history.last().map(|last| last.epoch),
            "steps": steps,
            "best_epoch": best.map(|best| best.epoch),
            "best_value": best.map(|best| best.value),
            "test_loss": tested.as_ref().map(|test| test.loss),
            "test_accuracy": tested.as_ref().map(|test| test.accuracy).filter(|x| x.is_finite()),
            "test_mae": tested.as_ref().map(|test| test.mean_absolute_error).filter(|x| x.is_finite()),
            "digest": digest,
            "best_checkpoint": best_checkpoint,
            "last_checkpoint": outcome.last_checkpoint,
            "warnings": warnings,
        }));
    } else if interrupted {
        if let Some(path) = &outcome.last_checkpoint {
            out.line(format!("saved {}; continue with --resume", path.display()));
        }
    } else {
        summarize(&outcome, tested.as_ref(), out);
    }
    match outcome.stop {
        Stop::Interrupted(Some(signal)) => Err(Exit::Interrupted(signal)),
        Stop::NonFinite { .. } => Ok(false),
        _ => Ok(!outcome.unsaved),
    }
}

fn summarize(outcome: &Outcome<Sequential>, tested: Option<&Evaluation>, out: &mut Output) {
    if let Some(best) = outcome.best {
        out.line(format!("best: {} at epoch {}", number(best.value), best.epoch));
    }
    if let Some(test) = tested {
        let how = match test.confusion.classes() {
            0 => format!("mean absolute error {}", number(test.mean_absolute_error)),
            _ => format!("accuracy {}", percent(test.accuracy)),
        };
        out.line(format!("test: loss {}, {how} of {}", number(test.loss), test.losses.len()));
    }
    if let Some(path) = &outcome.best_checkpoint {
        out.line(format!("best weights: {}", path.display()));
    }
}

fn check(
    model: &Sequential,
    params: &Params,
    parts: [Option<&ferrotape::data::Subset>; 3],
    warnings: &[String],
    out: &mut Output,
    as_json: bool,
) -> ferrotape::Result<()> {
    let shape = parts[0].map_or(&[][..], |train| train.input_shape());
    let summary = model.summary(params, [&[1], shape].concat().as_slice())?;
    let [train, valid, test] = parts.map(|part| part.map_or(0, Dataset::len));
    if as_json {
        out.json(&json!({
            "parameters": summary.parameters,
            "macs": summary.macs(),
            "train_examples": train,
            "valid_examples": valid,
            "test_examples": test,
            "warnings": warnings,
        }));
        return Ok(());
    }
    out.block(&summary.to_string());
    out.line("");
    out.line(format!("{train} examples to train on, {valid} to validate, {test} to test"));
    warnings.iter().for_each(|warning| out.line(format!("note: {warning}")));
    Ok(())
}

#[cfg(feature = "signals")]
fn interrupt() -> ferrotape::Result<Interrupt> {
    Interrupt::on_signals()
}

#[cfg(not(feature = "signals"))]
fn interrupt() -> ferrotape::Result<Interrupt> {
    Ok(Interrupt::never())
}
