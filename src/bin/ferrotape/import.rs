//! `ferrotape import`: weights of other programs become a checkpoint.

use std::path::{Path, PathBuf};

use ferrotape::checkpoint::{Checkpoints, LoadOptions, LoadReport, NamedTensor, TrainingState};
use ferrotape::files::read_text;
use ferrotape::nn::{Module, Sequential};
use ferrotape::params::Init;
use ferrotape::tensor::MAX_RANK;
use ferrotape::{Error, Params, Result, interop};
use serde_json::json;

use super::output::Output;
use super::{Arguments, Command, Exit, source};

pub(crate) const COMMAND: Command = Command {
    name: "import",
    summary: "make weights from .safetensors or .npz the first checkpoint of a run",
    help: "\
Makes weights of another program the first checkpoint of a new run directory, at epoch 0 and
without optimizer state: to predict with, to evaluate, or to load into a model that goes on
learning.

Usage: ferrotape import IN.safetensors|IN.npz --run-dir DIR [--like FILE|RUN_DIR | --arch ARCH]

      --run-dir DIR          where the checkpoint goes; must not hold checkpoints yet
      --like FILE|RUN_DIR    the weights must fit this checkpoint, whose configuration (with the
                             architecture) is taken over
      --arch ARCH            the weights must fit this architecture: a file that holds one, or the
                             text itself, such as '[{\"layer\":\"linear\",\"inputs\":4,\"outputs\":2}]'
      --rename FROM=TO       take what the file calls FROM for TO; one * stands for any characters:
                             --rename 'module.*=*'
      --allow-missing NAME   weights the file may lack: they stay as in --like, or as --arch begins
      --allow-unexpected NAME   weights the file may have too many

Without --like and --arch the weights are taken as they are.
",
    run,
};

fn run(mut arguments: Arguments, out: &mut Output) -> Result<bool, Exit> {
    let (mut dir, mut like, mut arch) = (None::<PathBuf>, None, None);
    let (mut options, mut relaxed) = (LoadOptions::new(), false);
    while let Some(option) = arguments.option()? {
        match option.as_str() {
            "run-dir" => dir = Some(arguments.path()?),
            "like" => like = Some(arguments.path()?),
            "arch" => arch = Some(arguments.path()?),
            "rename" => {
                let pair: String = arguments.value()?;
                let (from, to) = pair
                    .split_once('=')
                    .ok_or_else(|| arguments.refused(&pair, "expected FROM=TO"))?;
                options = options.rename(from, to);
            }
            "allow-missing" => options = options.allow_missing(arguments.value::<String>()?),
            "allow-unexpected" => options = options.allow_unexpected(arguments.value::<String>()?),
            _ => return arguments.unknown(&option),
        }
        relaxed |= !matches!(option.as_str(), "run-dir" | "like" | "arch");
    }
    let [from] = arguments.operands(["IN.safetensors|IN.npz"])?;
    let dir = dir.ok_or_else(|| Exit::Usage("missing --run-dir DIR".into()))?;
    let target = match (like, arch) {
        (Some(_), Some(_)) => {
            return Err(Exit::Usage("--like and --arch exclude each other".into()));
        }
        (None, None) if relaxed => {
            return Err(Exit::Usage("--rename and --allow-.. need --like or --arch".into()));
        }
        (Some(path), None) => Some(like_checkpoint(&path)?),
        (None, Some(arch)) => Some(of_architecture(&arch)?),
        (None, None) => None,
    };

    let tensors = interop::read(from)?;
    let (mut state, report) = match target {
        None => (TrainingState { params: tensors, ..TrainingState::default() }, None),
        Some(target) => {
            let (state, report) = fitted(target, &options, &tensors)?;
            (state, Some(report))
        }
    };
    state.config.retain(|(key, _)| key != "imported from");
    state.config.push(("imported from".to_owned(), from.display().to_string()));

    let mut checkpoints = Checkpoints::open(&dir)?;
    if checkpoints.has_checkpoints() {
        // A run that is resumed would go on from what was imported, not from where it was.
        let reason = "this directory already holds checkpoints; give a new one";
        return Err(Error::config(dir.display().to_string(), reason).into());
    }
    let saved = checkpoints.save(&state, None)?;
    let missing = report.map(|report| report.missing).unwrap_or_default();
    let count = state.params.len() + state.buffers.len();
    if arguments.json {
        out.json(&json!({
            "from": from.to_string_lossy(), "path": saved.path.to_string_lossy(),
            "generation": saved.generation, "digest": saved.digest, "tensors": count,
            "missing": missing,
        }));
    } else {
        missing.iter().for_each(|name| out.line(format!("not in the file, left alone: {name}")));
        out.line(format!("{count} tensors saved as {}", saved.path.display()));
    }
    Ok(true)
}

/// The state that a checkpoint would have before its first step.
fn like_checkpoint(path: &Path) -> Result<TrainingState<'static>> {
    let state = source::open(path, false)?.read_state()?;
    let TrainingState { config, params, buffers, .. } = state;
    Ok(TrainingState { config, params, buffers, ..TrainingState::default() })
}

/// The state that a model of this architecture begins with.
fn of_architecture(arch: &Path) -> Result<TrainingState<'static>> {
    let inline = arch.to_str().filter(|text| text.trim_start().starts_with('['));
    let text = match inline {
        Some(text) => text.to_owned(),
        None => read_text(arch)?,
    };
    let mut params = Params::new(0);
    let model = Sequential::from_architecture(&mut params, &text)?;
    let tensors = interop::weights(&params).into_iter().map(NamedTensor::into_owned).collect();
    let config = vec![("architecture".to_owned(), model.architecture())];
    Ok(TrainingState { config, params: tensors, ..TrainingState::default() })
}

/// The target with the values of the tensors, if they fit.
fn fitted(
    mut target: TrainingState<'static>,
    options: &LoadOptions,
    tensors: &[NamedTensor<'_>],
) -> Result<(TrainingState<'static>, LoadReport)> {
    // Other programs do not say what is trained and what is a buffer: here both are found by name.
    let mut store = Params::new(0);
    for tensor in target.params.iter().chain(&target.buffers) {
        let name = &tensor.name;
        if tensor.shape.len() > MAX_RANK || store.id(name).is_some() {
            let reason = format!("a model has no two tensors {name:?}, none above rank {MAX_RANK}");
            return Err(Error::config("--like", reason));
        }
        let id = store.add(name, &tensor.shape[..], Init::Zeros);
        store.get_mut(id).copy_from_slice(&tensor.data);
    }
    let report = options.load(tensors, &mut store)?;
    for (id, tensor) in store.ids().zip(target.params.iter_mut().chain(&mut target.buffers)) {
        tensor.data = store.get(id).to_vec().into();
    }
    Ok((target, report))
}
