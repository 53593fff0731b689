//! A run that was interrupted anywhere and resumed is the run that was not, to the last bit: same
//! weights, momentum, running statistics, history, stopping epoch, restored best, and digest of the
//! complete state.
//!
//! Each part of a run is a process of its own (this test, started again) with another number of
//! threads than the one before. It ends as asked, or dies without a chance to save: between two
//! steps, in the middle of an evaluation, in the middle of a save, in the middle of a save in the
//! background.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::hookfs::HookFs;
use common::scratch;
use common::toy::{self, Toy, bits};
use ferrotape::checkpoint::Checkpoints;
use ferrotape::data::RandomShift;
use ferrotape::monitor::EarlyStopping;
use ferrotape::nn::Sequential;
use ferrotape::optim::ConstantLr;
use ferrotape::trainer::{Callback, EvaluationInfo, Interrupt, Outcome, Stop, Trainer};
use ferrotape::{Error, Result};

mod common;

/// What a child is to do, in words: see [`child`].
const ORDERS: &str = "FERROTAPE_RESUME_TEST";
const DIR: &str = "FERROTAPE_RESUME_TEST_DIR";

/// Not a test: one part of a run.
#[test]
fn child() {
    let (Ok(orders), Some(dir)) = (std::env::var(ORDERS), std::env::var_os(DIR)) else { return };
    let number = |word: &str| -> Option<u64> {
        let number = orders.split(' ').find_map(|order| order.strip_prefix(word))?;
        Some(number.parse().unwrap())
    };
    let has = |word: &str| orders.split(' ').any(|order| order == word);
    let die_at_op = number("die-in-save=");
    let fs = HookFs::new(move |_, op| {
        if die_at_op == Some(op) {
            std::process::abort();
        }
        Ok(())
    });
    let interrupt = Interrupt::never();
    let (raise, raise_at) = (interrupt.clone(), number("interrupt-in-evaluation="));
    let die_at = number("die-in-evaluation=");
    let valid = toy::valid().on_read(move |reads| {
        if raise_at == Some(reads) {
            raise.raise();
        }
        if die_at == Some(reads) {
            std::process::abort();
        }
    });
    let die_at = number("die-in-step=");
    let train = toy::train().on_read(move |reads| {
        if die_at == Some(reads) {
            std::process::abort();
        }
    });
    let checkpoints = Checkpoints::open_in(Arc::new(fs), dir).unwrap();
    let mut trainer = toy::trainer(checkpoints, has("plateau"))
        .max_steps(number("max-steps="))
        .interrupt(interrupt.clone());
    if has("background") {
        trainer = trainer.save_in_background(Duration::ZERO);
    }
    if has("interrupt-after-evaluation") {
        trainer = trainer.callback(Raise(interrupt));
    }
    println!("RESULT {}", summary(&trainer.fit(&train, &valid)));
}

/// Interrupts the run right after its first evaluation was saved.
struct Raise(Interrupt);

impl Callback for Raise {
    fn on_evaluation(&mut self, _evaluation: &EvaluationInfo<'_>) -> Result<()> {
        self.0.raise();
        Ok(())
    }
}

/// Everything about an outcome that must be the same, in one line.
fn summary(outcome: &Result<Outcome<Sequential>>) -> String {
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => return format!("error: {error}"),
    };
    let Outcome { stop, steps, best, digest, warnings, .. } = outcome;
    let mut history = outcome.history.clone();
    // The only thing that is not reproducible.
    history.iter_mut().for_each(|observation| observation.elapsed = None);
    let weights = bits(&outcome.params);
    format!("{stop:?} {steps} {best:?} {digest:?} {warnings:?} {history:?} {weights:?}")
}

/// One part of a run; `None` if it died.
fn part(dir: &Path, orders: &str) -> Option<String> {
    // Between 1 and 4 threads, another number for each part.
    static PART: AtomicUsize = AtomicUsize::new(0);
    let threads = 1 + PART.fetch_add(1, Ordering::Relaxed) % 4;
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env("RAYON_NUM_THREADS", threads.to_string())
        .env("RUST_BACKTRACE", "0")
        .env(ORDERS, orders)
        .env(DIR, dir)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    match text.lines().find_map(|line| line.split_once("RESULT ")) {
        Some((_, summary)) => Some(summary.to_owned()),
        None => {
            let message = String::from_utf8_lossy(&output.stderr);
            assert!(died(output.status), "{orders}: {:?}\n{text}\n{message}", output.status);
            None
        }
    }
}

/// Killed by a signal, as by `abort`, and not by a failed assertion.
fn died(status: ExitStatus) -> bool {
    if cfg!(unix) { status.code().is_none() } else { status.code() != Some(101) }
}

fn run_dir(name: &str) -> PathBuf {
    scratch("trainer_resume", name)
}

/// The summary of the uninterrupted run, and its number of steps.
fn whole(name: &str, kind: &str) -> (String, u64) {
    let whole = part(&run_dir(name), kind).unwrap();
    assert!(whole.starts_with("Early("), "the run is to stop early: {whole}");
    let steps = whole.split(") ").find_map(|rest| rest.split(' ').next()?.parse().ok()).unwrap();
    assert!(steps >= 3 * toy::STEPS_PER_EPOCH, "three epochs at least: {whole}");
    (whole, steps)
}

#[track_caller]
fn assert_interrupted(summary: Option<String>, steps: u64) {
    let summary = summary.expect("did not die");
    let expected = format!("{:?} {steps} ", Stop::Interrupted(None));
    assert!(summary.starts_with(&expected), "{expected}: {summary}");
}

#[test]
fn interrupted_at_every_step() {
    let kinds = [("", "steps-a"), ("plateau", "steps-b"), ("background", "steps-c")];
    let runs = kinds.map(|(kind, name)| whole(name, kind));
    assert_eq!(runs[0], runs[2], "where it is saved makes no difference");
    assert_ne!(runs[0], runs[1], "the schedule does");
    for ((kind, name), (whole, steps)) in kinds.into_iter().zip(runs) {
        for stop in 1..steps {
            let dir = run_dir(name);
            assert_interrupted(part(&dir, &format!("{kind} max-steps={stop}")), stop);
            assert_eq!(part(&dir, kind).unwrap(), whole, "{kind}, after step {stop}");
        }
    }
}

#[test]
fn interrupted_after_every_step_in_one_run() {
    let (whole, steps) = whole("one-a", "plateau");
    let dir = run_dir("one-b");
    for stop in 1..steps {
        assert_interrupted(part(&dir, &format!("plateau max-steps={stop}")), stop);
    }
    assert_eq!(part(&dir, "plateau").unwrap(), whole);
}

#[test]
fn dead_in_the_middle_of_any_step() {
    let (whole, steps) = whole("mid-step", "");
    // Every 7th example read for training, so in the first or second batch of each step.
    for read in (0..steps * 15).step_by(7) {
        let dir = run_dir("mid-step");
        assert_eq!(part(&dir, &format!("die-in-step={read}")), None, "at example {read}");
        assert_eq!(part(&dir, "").unwrap(), whole, "at example {read}");
    }
}

#[test]
fn interrupted_or_dead_in_the_middle_of_an_evaluation() {
    let (whole, _) = whole("evaluation", "");
    // Each evaluation reads 300 examples in two batches: in the first of them, in the second, at
    // the end of the first and of later evaluations.
    for at in [0, 1, 249, 250, 299, 300, 599, 600, 750, 899] {
        let dir = run_dir("evaluation");
        let evaluations = at / 300;
        let interrupted = part(&dir, &format!("interrupt-in-evaluation={at}"));
        assert_interrupted(interrupted, (evaluations + 1) * toy::STEPS_PER_EPOCH);
        assert_eq!(part(&dir, "").unwrap(), whole, "interrupted at example {at}");

        let dir = run_dir("evaluation");
        assert_eq!(part(&dir, &format!("die-in-evaluation={at}")), None);
        assert_eq!(part(&dir, "").unwrap(), whole, "dead at example {at}");
    }
}

#[test]
fn interrupted_after_an_evaluation_takes_no_further_step() {
    let (whole, _) = whole("after", "");
    let dir = run_dir("after");
    assert_interrupted(part(&dir, "interrupt-after-evaluation"), toy::STEPS_PER_EPOCH);
    assert_eq!(part(&dir, "").unwrap(), whole);
}

#[test]
fn dead_in_the_middle_of_a_save_at_every_operation() {
    for (kind, name) in [("", "save-a"), ("background", "save-b")] {
        let (whole, _) = whole(name, kind);
        let mut deaths = 0;
        loop {
            let dir = run_dir(name);
            if part(&dir, &format!("{kind} die-in-save={deaths}")).is_some() {
                break; // there are not that many operations
            }
            match part(&dir, kind).unwrap() {
                // The state that ends the run was on disk before the last operations.
                error if error.contains("this run is finished") => {}
                summary => assert_eq!(summary, whole, "{kind}: dead at operation {deaths}"),
            }
            deaths += 1;
        }
        println!("{kind}: died and went on at each of {deaths} operations of saving");
        assert!(deaths > 40, "{kind}: only {deaths} operations of saving were seen");
    }
}

fn open(dir: &Path) -> Checkpoints {
    Checkpoints::open(dir).unwrap()
}

fn fit(trainer: Trainer<Sequential>) -> Result<Outcome<Sequential>> {
    trainer.fit(&toy::train(), &toy::valid())
}

#[test]
fn a_finished_run_goes_on_only_if_the_settings_allow_more() {
    let refused = |trainer: Trainer<Sequential>| match fit(trainer) {
        Err(Error::Config { reason, .. }) => assert!(reason.contains("is finished"), "{reason}"),
        other => panic!("{other:?}"),
    };
    // Stopped by the monitor: more epochs do not help, more patience does.
    let dir = run_dir("refuse-patience");
    let stopped = fit(toy::trainer(open(&dir), false)).unwrap();
    refused(toy::trainer(open(&dir), false));
    refused(toy::trainer(open(&dir), false).epochs(100));
    let patient = |dir| toy::trainer(open(dir), false).monitor(EarlyStopping::patience(4));
    let more = fit(patient(&dir));
    assert!(more.as_ref().unwrap().steps > stopped.steps, "{more:?}");
    let at_once = fit(patient(&run_dir("refuse-at-once")));
    assert_eq!(summary(&more), summary(&at_once), "as if it had been that patient from the start");

    // Stopped by the number of epochs.
    let dir = run_dir("refuse-epochs");
    let short = |dir| toy::trainer(open(dir), false).epochs(2);
    assert_eq!(fit(short(&dir)).unwrap().stop, Stop::Epochs(2));
    refused(short(&dir));
    let more = fit(toy::trainer(open(&dir), false)).unwrap();
    assert_eq!(more.digest, stopped.digest);
    assert_eq!(bits(&more.params), bits(&stopped.params));
}

#[test]
fn a_run_with_other_settings_is_not_resumed() {
    let dir = run_dir("other");
    fit(toy::trainer(open(&dir), false).max_steps(Some(3))).unwrap();
    let refused = |name: &str, outcome: Result<Outcome<Sequential>>| match outcome {
        Err(Error::Config { name: seen, .. }) => assert_eq!(seen, name),
        other => panic!("{name}: {other:?}"),
    };
    type Change = fn(Trainer<Sequential>) -> Trainer<Sequential>;
    let changes: [(&str, Change); 5] = [
        ("batch_size", |trainer| trainer.batch_size(7)),
        ("accumulate", |trainer| trainer.accumulate(1)),
        ("clip_grad_norm", |trainer| trainer.clip_grad_norm(1.0)),
        ("schedule", |trainer| trainer.schedule(ConstantLr)),
        ("augmentation", |trainer| trainer.augment(RandomShift { max: 2 })),
    ];
    for (name, change) in changes {
        refused(name, fit(change(toy::trainer(open(&dir), false))));
    }
    let trainer = || toy::trainer(open(&dir), false);
    refused("training data", trainer().fit(&Toy::new(60, 1.0, 3), &toy::valid()));
    refused("validation data", trainer().fit(&toy::train(), &toy::train()));
    assert_eq!(
        fit(trainer()).unwrap().steps,
        fit(toy::trainer(open(&run_dir("same")), false)).unwrap().steps
    );
}
