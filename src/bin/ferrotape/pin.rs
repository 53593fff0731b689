//! `ferrotape pin` and `unpin`: protect a checkpoint from deletion.

use serde_json::json;

use super::output::Output;
use super::prune::open_existing;
use super::{Arguments, Command, Exit};

pub(crate) const PIN: Command = Command {
    name: "pin",
    summary: "protect a checkpoint from deletion",
    help: "\
Protects a checkpoint from deletion, by `prune` and by the run itself. A directory in use by a
training run is refused.

Usage: ferrotape pin RUN_DIR GENERATION
",
    run: |arguments, out| set(arguments, out, true),
};

pub(crate) const UNPIN: Command = Command {
    name: "unpin",
    summary: "take back what pin did",
    help: "\
Takes back the protection that `pin` has given to a checkpoint.

Usage: ferrotape unpin RUN_DIR GENERATION
",
    run: |arguments, out| set(arguments, out, false),
};

fn set(mut arguments: Arguments, out: &mut Output, pinned: bool) -> Result<bool, Exit> {
    if let Some(option) = arguments.option()? {
        return arguments.unknown(&option);
    }
    let [dir, generation] = arguments.operands(["RUN_DIR", "GENERATION"])?;
    let generation: u64 =
        generation.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| {
            Exit::Usage(format!("GENERATION {}: expected a number", generation.display()))
        })?;
    open_existing(dir)?.set_pinned(generation, pinned)?;
    if arguments.json {
        out.json(&json!({ "generation": generation, "pinned": pinned }));
    } else {
        let state = if pinned { "pinned" } else { "not pinned" };
        out.line(format!("generation {generation} is {state}"));
    }
    Ok(true)
}
