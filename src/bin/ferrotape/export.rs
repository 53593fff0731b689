//! `ferrotape export`: weights for other programs.

use std::path::PathBuf;

use ferrotape::interop;
use serde_json::json;

use super::output::Output;
use super::{Arguments, Command, Exit, source};

pub(crate) const COMMAND: Command = Command {
    name: "export",
    summary: "write the weights as .safetensors or .npz",
    help: "\
Writes the parameters and buffers of a checkpoint for other programs, under the names they have
here, which are those of a PyTorch state_dict. The file appears when it is complete.

Usage: ferrotape export FILE|RUN_DIR --to OUT.safetensors|OUT.npz

      --to OUT    where to write; an existing file is replaced
      --best      of a run: the checkpoint with the best metric, not the newest
      --all       also the optimizer's memory, as optimizer.NAME
",
    run,
};

fn run(mut arguments: Arguments, out: &mut Output) -> Result<bool, Exit> {
    let (mut to, mut best, mut all) = (None::<PathBuf>, false, false);
    while let Some(option) = arguments.option()? {
        match option.as_str() {
            "to" => to = Some(arguments.path()?),
            "best" => best = true,
            "all" => all = true,
            _ => return arguments.unknown(&option),
        }
    }
    let [from] = arguments.operands(["FILE|RUN_DIR"])?;
    let to = to.ok_or_else(|| Exit::Usage("missing --to OUT.safetensors or OUT.npz".into()))?;
    let file = source::open(from, best)?;
    let from = file.path().to_owned();
    let state = file.read_state()?;
    let mut tensors = [state.params, state.buffers].concat();
    if all {
        tensors.extend(state.optimizer.slots.into_iter().map(|mut slot| {
            slot.name.insert_str(0, "optimizer.");
            slot
        }));
    }
    interop::write(&to, &tensors)?;
    if arguments.json {
        out.json(&json!({
            "from": from.to_string_lossy(), "to": to.to_string_lossy(), "tensors": tensors.len(),
        }));
    } else {
        out.line(format!(
            "{} tensors of {} written to {}",
            tensors.len(),
            from.display(),
            to.display()
        ));
    }
    Ok(true)
}
