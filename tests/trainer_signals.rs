//! SIGINT and SIGTERM to a real process: the step is finished, the state saved, the exit status
//! 130 or 143. A second signal ends the process at once, whatever it is doing.
//!
//! The child (this test, started again) says when it is where the signal is to meet it, and stays
//! there until the signal has come: nothing here depends on how fast anything is.
#![cfg(all(unix, feature = "signals"))]

use std::io::{self, BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::hookfs::HookFs;
use common::{scratch, toy};
use ferrotape::checkpoint::Checkpoints;
use ferrotape::trainer::{Interrupt, Stop};

mod common;

const ORDERS: &str = "FERROTAPE_SIGNAL_TEST";
const DIR: &str = "FERROTAPE_SIGNAL_TEST_DIR";

/// Not a test: a run that waits for a signal somewhere.
#[test]
fn child() {
    let (Ok(orders), Some(dir)) = (std::env::var(ORDERS), std::env::var_os(DIR)) else { return };
    let has = |word: &str| orders.split(' ').any(|order| order == word);
    let interrupt = Interrupt::on_signals().unwrap();
    let hang = has("hang");
    let wait = {
        let interrupt = interrupt.clone();
        move || {
            println!("HERE");
            while !interrupt.requested() {
                std::thread::sleep(Duration::from_millis(1));
            }
            println!("SIGNALLED");
            if hang {
                loop {
                    std::thread::park();
                }
            }
        }
    };
    // In the second step; in the second batch of the first evaluation; before the fsync of the
    // first save after that of the preflight.
    let at = |word: &str, n: u64| {
        let (wanted, wait) = (has(word), wait.clone());
        let seen = AtomicU64::new(0);
        move || {
            if wanted && seen.fetch_add(1, Ordering::Relaxed) == n {
                wait();
            }
        }
    };
    let (in_step, in_evaluation, in_save) = (at("step", 20), at("evaluation", 270), at("save", 1));
    let train = toy::train().on_read(move |_| in_step());
    let valid = toy::valid().on_read(move |_| in_evaluation());
    let fs = HookFs::new(move |op, _| {
        if op == "sync_all" {
            in_save();
        }
        Ok(())
    });
    let checkpoints = Checkpoints::open_in(Arc::new(fs), dir).unwrap();
    let mut trainer = toy::trainer(checkpoints, false).interrupt(interrupt);
    if has("background") {
        trainer = trainer.save_in_background(Duration::from_secs(3600));
    }
    let outcome = trainer.fit(&train, &valid).unwrap();
    println!("RESULT {} {:?}", outcome.steps, outcome.digest);
    if let Stop::Interrupted(Some(signal)) = outcome.stop {
        std::process::exit(128 + signal);
    }
}

struct Run {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Run {
    fn start(dir: &Path, orders: &str) -> Run {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(ORDERS, orders)
            .env(DIR, dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Run { child, lines }
    }

    /// The rest of the first line that has this word in it; `None` if there is none.
    fn read_to(&mut self, word: &str) -> Option<String> {
        let mut lines = self.lines.by_ref().map_while(io::Result::ok);
        lines.find_map(|line| Some(line.split_once(word)?.1.to_owned()))
    }

    fn send(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    /// What it reported at the end, if it did, and its exit status.
    fn end(mut self) -> (Option<String>, Option<i32>) {
        (self.read_to("RESULT "), self.child.wait().unwrap().code())
    }
}

/// Where the signal comes, and how many steps there are then at least and at most. Training goes on
/// while it is saved in the background, up to the next evaluation.
const PLACES: [(&str, u64, u64); 4] =
    [("step", 2, 2), ("evaluation", 4, 4), ("save", 4, 4), ("save background", 4, 8)];

fn whole(name: &str) -> String {
    let (whole, status) = Run::start(&scratch("trainer_signals", name), "").end();
    assert_eq!(status, Some(0));
    whole.unwrap()
}

#[test]
fn a_signal_finishes_the_step_saves_and_ends_with_its_status() {
    let whole = whole("whole-one");
    for (signal, status) in [("INT", 130), ("TERM", 143)] {
        for (place, least, most) in PLACES {
            let dir = scratch("trainer_signals", "one");
            let mut run = Run::start(&dir, place);
            run.read_to("HERE").unwrap();
            run.send(signal);
            let (result, seen) = run.end();
            assert_eq!(seen, Some(status), "{signal} in {place}");
            let result = result.expect("fit has returned");
            let (steps, digest) = result.split_once(' ').unwrap();
            let steps = steps.parse().unwrap();
            assert!((least..=most).contains(&steps), "{signal} in {place}: {result}");
            assert!(digest.starts_with("Some"), "{signal} in {place}: not saved");
            assert_eq!(Run::start(&dir, "").end(), (Some(whole.clone()), Some(0)), "{place}");
        }
    }
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let whole = whole("whole-two");
    let pairs = [("INT", "INT", 130), ("TERM", "TERM", 143), ("INT", "TERM", 143)];
    for (first, second, status) in pairs {
        for (place, ..) in PLACES {
            let dir = scratch("trainer_signals", "two");
            let mut run = Run::start(&dir, &format!("{place} hang"));
            run.read_to("HERE").unwrap();
            run.send(first);
            run.read_to("SIGNALLED").unwrap();
            run.send(second);
            assert_eq!(run.end(), (None, Some(status)), "{first}, {second} in {place}");
            // It is as if the process had died there.
            assert_eq!(Run::start(&dir, "").end(), (Some(whole.clone()), Some(0)), "{place}");
        }
    }
}
