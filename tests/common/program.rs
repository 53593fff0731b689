//! The command line `ferrotape` as its users start it.

use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ferrotape::checkpoint::Checkpoints;
use serde_json::Value;

pub fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ferrotape"))
}

/// Between fork and exec a child holds what its parent has open, locks too: while one is started,
/// no run directory may be closed, or it would stay locked for a moment.
static FORK: Mutex<()> = Mutex::new(());

fn fork_lock() -> MutexGuard<'static, ()> {
    FORK.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn start(command: &mut Command) -> Child {
    let _guard = fork_lock();
    command.spawn().unwrap()
}

pub fn close(checkpoints: Checkpoints) {
    let _guard = fork_lock();
    drop(checkpoints);
}

pub fn output(command: &mut Command) -> Output {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    start(command).wait_with_output().unwrap()
}

/// Exit code and stderr of a command whose output nobody reads: `| true`.
pub fn unread(command: &mut Command) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let command = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
    let output = start(command).wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Exit code, stdout, stderr.
pub fn ferrotape(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = output(program().args(arguments));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().expect("no signal"), text(stdout), text(stderr))
}

/// The output of a command that must succeed, and has nothing to complain about.
#[track_caller]
pub fn ok(arguments: &[&str]) -> String {
    let (code, out, error) = ferrotape(arguments);
    assert_eq!((code, error.as_str()), (0, ""), "{arguments:?}");
    out
}

/// The JSON that a command prints.
#[track_caller]
pub fn json(arguments: &[&str]) -> Value {
    let (_, out, error) = ferrotape(&[arguments, &["--json"]].concat());
    serde_json::from_str(&out).unwrap_or_else(|_| panic!("{arguments:?}: {out} {error}"))
}
