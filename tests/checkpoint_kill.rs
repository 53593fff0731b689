//! A real process, killed at every system call that matters.
//!
//! A child process (this test, started again) saves in a loop and prints what has been saved.
//! Under `strace` it is killed with SIGKILL at its 1st, 2nd, 3rd, ... write, fsync, link, unlink
//! and so on, until a run gets through; each new child begins on what the one before left behind.
//! Where `strace` is missing or not permitted, the child is killed at the 1st, 2nd, ... line it
//! prints; what is in between is then covered by `checkpoint_crash.rs` alone.

#![cfg(unix)]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{loss, scratch, tiny_state};
use ferrotape::checkpoint::Checkpoints;

mod common;

const DIR: &str = "FERROTAPE_KILL_TEST_DIR";
/// How many states a child saves.
const SAVES: u64 = 3;
const SYSCALLS: &str = "openat write pwrite64 lseek flock fsync link linkat rename renameat unlink";

/// Not a test: what the child does.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let mut checkpoints = Checkpoints::open(dir).unwrap().keep_last(2).keep_best(1);
    let start = match checkpoints.load_latest().unwrap() {
        Some(loaded) => loaded.state.cursor.step,
        None => 0,
    };
    for step in start + 1..=start + SAVES {
        let metric = loss(1.0 / step as f64);
        let saved = checkpoints.save(&tiny_state(step), metric).unwrap();
        assert!(saved.warnings.is_empty(), "{:?}", saved.warnings);
        println!("saved {step}");
    }
    println!("done");
}

/// The step last reported by a child, and whether it got through.
fn read_reports(out: impl Read, mut on_line: impl FnMut(u64)) -> (Option<u64>, bool) {
    let (mut last, mut done) = (None, false);
    for line in BufReader::new(out).lines().map_while(Result::ok) {
        if let Some((_, step)) = line.split_once("saved ") {
            let step = step.trim().parse().unwrap();
            last = Some(step);
            on_line(step);
        }
        done |= line.contains("done");
    }
    (last, done)
}

fn command(program: &Path, dir: &Path, strace: &[&str]) -> Command {
    let mut command = match strace {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    command
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// What must hold after any death.
fn check(dir: &Path, reported: &mut u64, what: &str) {
    let mut checkpoints = Checkpoints::open(dir).unwrap();
    let latest = checkpoints.load_latest().unwrap_or_else(|error| panic!("{what}: {error}"));
    let step = latest.as_ref().map_or(0, |latest| latest.state.cursor.step);
    assert!(step >= *reported, "{what}: {step} recovered, {reported} reported");
    if let Some(latest) = latest {
        assert!(latest.skipped.is_empty(), "{what}: {:?}", latest.skipped);
        assert_eq!(latest.state, tiny_state(step), "{what}");
    }
    *reported = step;
}

#[test]
fn a_process_killed_at_any_system_call_loses_nothing_it_reported() {
    let program = std::env::current_exe().unwrap();
    let dir = scratch("checkpoint_kill", "run");
    let mut reported = 0;
    let mut killed = 0;
    let usable = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "-e", "inject=fsync:signal=KILL:when=9999", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if usable {
        for syscall in SYSCALLS.split(' ') {
            for nth in 1.. {
                let inject = format!("inject=?{syscall}:signal=KILL:when={nth}");
                let trace = format!("trace=?{syscall}");
                let strace =
                    ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
                let mut child = command(&program, &dir, &strace).spawn().unwrap();
                let (last, done) = read_reports(child.stdout.take().unwrap(), |_| {});
                child.wait().unwrap();
                reported = reported.max(last.unwrap_or(0));
                check(&dir, &mut reported, &format!("{syscall} {nth}"));
                killed += u64::from(!done);
                if done {
                    break;
                }
                assert!(nth < 2000, "the child never gets through");
            }
        }
        assert!(killed > 30, "only {killed} deaths: injection does not work");
    } else {
        for nth in 0..=SAVES {
            let mut child = command(&program, &dir, &[]).spawn().unwrap();
            let out = child.stdout.take().unwrap();
            let mut lines = 0;
            if nth == 0 {
                child.kill().unwrap();
            }
            let (last, done) = read_reports(out, |_| {
                lines += 1;
                if lines == nth {
                    child.kill().unwrap();
                }
            });
            child.wait().unwrap();
            reported = reported.max(last.unwrap_or(0));
            check(&dir, &mut reported, &format!("line {nth}"));
            killed += u64::from(!done);
        }
    }
    println!("killed {killed} times (strace: {usable}), {reported} steps saved, none lost");
}
