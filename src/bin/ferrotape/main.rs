//! The command line: train a model that a file describes, use it; look at, verify, compare, convert
//! and prune checkpoints; replay stopping rules and report on runs.
//!
//! Every command is a file beside this one that exports a [`Command`]. It reads its
//! [`Arguments`], writes to an [`Output`] and says whether all is well; this file turns that into
//! text on stdout, messages on stderr and an exit code. Commands that only look never create,
//! lock or delete anything: a run may be training in the directory they look at.

mod arguments;
mod diff;
mod eval;
mod export;
mod import;
mod inspect;
mod ls;
mod output;
mod pin;
mod predict;
mod prune;
mod replay;
mod report;
mod source;
mod train;
mod verify;

use std::io::{self, Write};
use std::process::ExitCode;

use arguments::Arguments;
use ferrotape_kernels::{conv2d::winograd_from_env, isa::Isa};
use output::{Output, printable};

/// One subcommand.
struct Command {
    name: &'static str,
    /// One line for the list of commands.
    summary: &'static str,
    /// What `--help` prints.
    help: &'static str,
    /// `Ok(false)` if what was asked about is damaged or different.
    run: fn(Arguments, &mut Output) -> Result<bool, Exit>,
}

const COMMANDS: [&Command; 14] = [
    &train::COMMAND,
    &eval::COMMAND,
    &predict::COMMAND,
    &ls::COMMAND,
    &inspect::COMMAND,
    &verify::COMMAND,
    &diff::COMMAND,
    &replay::COMMAND,
    &report::COMMAND,
    &export::COMMAND,
    &import::COMMAND,
    &prune::COMMAND,
    &pin::PIN,
    &pin::UNPIN,
];

const EXIT_CODES: &str = "\
Exit code: 0 all is well; 1 something failed, is damaged or is different; 2 the command line was
not understood; 128 + n training was interrupted by signal n and can be resumed.
";

/// Why a command ends before it is done.
enum Exit {
    /// `--help` was given.
    Help,
    /// The command line is wrong.
    Usage(String),
    /// What was asked for could not be done.
    Failed(ferrotape::Error),
    /// A signal came; what was done so far is safe.
    Interrupted(i32),
}

impl Exit {
    /// The same, with where the command line is explained: for all or, with a space, one command.
    fn see(self, command: &str) -> Self {
        match self {
            Exit::Usage(reason) => Exit::Usage(format!("{reason}; see ferrotape {command}--help")),
            other => other,
        }
    }
}

impl From<ferrotape::Error> for Exit {
    fn from(error: ferrotape::Error) -> Self {
        Exit::Failed(error)
    }
}

impl From<lexopt::Error> for Exit {
    fn from(error: lexopt::Error) -> Self {
        Exit::Usage(error.to_string())
    }
}

fn main() -> ExitCode {
    let mut out = Output::default();
    let mut code = match run(&mut out) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(Exit::Help) => 0,
        Err(Exit::Failed(error)) => {
            message(&error.to_string());
            1
        }
        Err(Exit::Interrupted(signal)) => 128 + signal as u8,
        Err(Exit::Usage(reason)) => {
            message(&reason);
            2
        }
    };
    let mut stdout = io::stdout();
    match stdout.write_all(out.text().as_bytes()).and_then(|()| stdout.flush()) {
        // Whoever closes the pipe early has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            message(&format!("cannot write the output: {error}"));
            code = 1;
        }
        _ => {}
    }
    ExitCode::from(code)
}

/// A line on stderr, if there is one.
fn message(text: &str) {
    let _ = writeln!(io::stderr(), "ferrotape: {}", printable(text));
}

fn run(out: &mut Output) -> Result<bool, Exit> {
    let (name, arguments) = Arguments::from_env().map_err(|exit| exit.see(""))?;
    let find = |name: &str| {
        let found = COMMANDS.iter().find(|command| command.name == name);
        found.ok_or_else(|| Exit::Usage(format!("no command {name:?}")).see(""))
    };
    match name.as_str() {
        "--version" => out.line(concat!("ferrotape ", env!("CARGO_PKG_VERSION"))),
        "--help" | "help" => {
            match arguments.operand_texts().map_err(|exit| exit.see(""))?.as_slice() {
                [] => help(out),
                [name] => command_help(find(name)?, out),
                [_, surplus, ..] => {
                    let reason = format!("help: {surplus} is one operand too many");
                    return Err(Exit::Usage(reason).see(""));
                }
            }
        }
        name => {
            let command = find(name)?;
            // Asked for here, a wrong setting is an error; the first kernel would panic.
            if let Err(reason) = Isa::from_env().and(winograd_from_env()) {
                return Err(Exit::Usage(reason.into()));
            }
            return match (command.run)(arguments, out) {
                Err(Exit::Help) => {
                    command_help(command, out);
                    Err(Exit::Help)
                }
                Err(Exit::Usage(reason)) => {
                    Err(Exit::Usage(format!("{name}: {reason}")).see(&format!("{name} ")))
                }
                other => other,
            };
        }
    }
    Ok(true)
}

fn help(out: &mut Output) {
    out.block(
        "Trains models that a file describes, uses them, and looks after their checkpoints.\n\n\
         Usage: ferrotape COMMAND [OPTIONS]\n\n",
    );
    for command in COMMANDS {
        out.line(format!("  {:<9} {}", command.name, command.summary));
    }
    out.block(
        "\nferrotape COMMAND --help explains a command. Every command prints JSON with --json.\n\n",
    );
    out.block(EXIT_CODES);
}

fn command_help(command: &Command, out: &mut Output) {
    out.block(command.help);
    out.block("\n      --json      print JSON\n  -h, --help      print this text\n\n");
    out.block(EXIT_CODES);
}
