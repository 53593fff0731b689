//! The command line: look at, verify, compare, convert and prune checkpoints; replay stopping rules.
//!
//! Exit codes, as of `diff`: 0 all is well, 1 something is damaged or different, 2 trouble
//! (a wrong argument, a file that cannot be read).

mod replay;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ferrotape::checkpoint::{
    self, CheckpointFile, Checkpoints, Dtype, Entry, NamedTensor, Retention, Role, TensorInfo,
    TrainingState,
};
use ferrotape::{Error, Result};
use serde_json::{Value, json};

const HELP: &str = "\
Look at, verify, compare, convert and prune Ferrotape checkpoints.

Usage: ferrotape <command> [options]

  ls DIR                 the checkpoints of a run: generation, epoch, metric, roles, size
  inspect FILE           what is in a checkpoint: configuration, position, history, tensors
  verify PATH...         read every byte of files, or of all files of runs
  diff FILE FILE         which tensors differ, and by how much
  replay SOURCE          what --rule R ... would have done on a log, checkpoint or run
  export FILE OUT        write the weights as OUT.safetensors or OUT.npz
  import IN DIR          make weights from .safetensors or .npz a new checkpoint in DIR
  pin DIR GENERATION     protect a checkpoint from deletion; unpin takes that back
  prune DIR              delete what no role needs
      --keep-last N      (3, at least 2)    --keep-every N   epochs
      --keep-best N      (1)                --max-bytes N

Options:
  --json                 print JSON
  --verify               ls: also read every byte
  --rule RULE            replay: such as 'patience(3)' or 'any(gl(5),up(3,k=5))'
  --all                  export: optimizer slots and buffers as well
  -h, --help    -V, --version

Exit code: 0 all is well, 1 something is damaged or different, 2 trouble.
";

fn main() -> ExitCode {
    let mut out = String::new();
    let code = match Options::parse().and_then(|options| run(&options, &mut out)) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            eprintln!("ferrotape: {error}");
            2
        }
    };
    // Whoever closes the pipe early has seen enough.
    let _ = std::io::stdout().write_all(out.as_bytes());
    ExitCode::from(code)
}

#[derive(Default)]
struct Options {
    command: String,
    paths: Vec<PathBuf>,
    json: bool,
    verify: bool,
    all: bool,
    retention: Retention,
    rules: Vec<String>,
}

impl Options {
    fn parse() -> Result<Options> {
        Self::parse_arguments().map_err(|error| Error::config("arguments", error.to_string()))
    }

    fn parse_arguments() -> std::result::Result<Options, lexopt::Error> {
        use lexopt::prelude::*;
        let mut options = Options::default();
        let mut arguments = lexopt::Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Short('h') | Long("help") => options.command = "help".into(),
                Short('V') | Long("version") => options.command = "version".into(),
                Long("json") => options.json = true,
                Long("verify") => options.verify = true,
                Long("all") => options.all = true,
                Long("rule") => options.rules.push(arguments.value()?.string()?),
                Long("keep-last") => options.retention.last = arguments.value()?.parse()?,
                Long("keep-best") => options.retention.best = arguments.value()?.parse()?,
                Long("keep-every") => {
                    options.retention.every_epochs = Some(arguments.value()?.parse()?);
                }
                Long("max-bytes") => {
                    options.retention.max_bytes = Some(arguments.value()?.parse()?);
                }
                Value(value) if options.command.is_empty() => options.command = value.string()?,
                Value(value) => options.paths.push(value.into()),
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(options)
    }

    /// Exactly `N` operands.
    fn operands<const N: usize>(&self) -> Result<[&Path; N]> {
        let paths: Vec<&Path> = self.paths.iter().map(PathBuf::as_path).collect();
        paths.try_into().map_err(|paths: Vec<_>| {
            let reason = format!("{N} operands expected, {} given; see --help", paths.len());
            Error::config(&self.command, reason)
        })
    }
}

/// Runs a command; `Ok(false)` if something is damaged or different.
fn run(options: &Options, out: &mut String) -> Result<bool> {
    match options.command.as_str() {
        "ls" => ls(options, out),
        "inspect" => inspect(options, out),
        "verify" => verify(options, out),
        "diff" => diff(options, out),
        "replay" => replay::replay(options, out),
        "export" => export(options, out),
        "import" => import(options, out),
        "pin" | "unpin" => pin(options, out),
        "prune" => prune(options, out),
        "help" => {
            out.push_str(HELP);
            Ok(true)
        }
        "version" => {
            out.push_str(concat!("ferrotape ", env!("CARGO_PKG_VERSION"), "\n"));
            Ok(true)
        }
        "" => Err(Error::config("command", "none given; see ferrotape --help")),
        other => Err(Error::config("command", format!("no {other:?}; see ferrotape --help"))),
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{text}"); // a String does not refuse
}

fn print_json(out: &mut String, value: &Value) {
    line(out, format_args!("{value:#}"));
}

fn ls(options: &Options, out: &mut String) -> Result<bool> {
    let [dir] = options.operands()?;
    let (entries, skipped) = checkpoint::list(dir)?;
    let roles = Retention::default().roles(&entries);
    let mut well = skipped.is_empty();
    let mut rows = Vec::new();
    if !options.json {
        line(
            out,
            format_args!("generation  epoch        step  {:>22}  roles             size", "metric"),
        );
    }
    for (entry, roles) in entries.iter().zip(roles) {
        let state = match options.verify.then(|| verified(&entry.path)) {
            None => "",
            Some(Ok(())) => "verified",
            Some(Err(_)) => {
                well = false;
                "DAMAGED"
            }
        };
        let metric = entry.metric.as_ref();
        if options.json {
            rows.push(json!({
                "generation": entry.generation, "path": entry.path.to_string_lossy(),
                "epoch": entry.cursor.epoch, "step": entry.cursor.step,
                "metric": metric.map(|metric| &metric.name),
                "value": metric.map(|metric| metric.value),
                "roles": roles.names(), "bytes": entry.bytes, "digest": entry.digest,
                "verified": options.verify.then_some(state == "verified"),
            }));
            continue;
        }
        let Entry { generation, cursor, bytes, .. } = entry;
        let metric = metric.map_or_else(String::new, |m| format!("{} {:.6}", m.name, m.value));
        let roles = roles.names().join(" ");
        line(
            out,
            format_args!(
                "{generation:>10}  {:>5}  {:>10}  {metric:>22}  {roles:<16}  {}  {state}",
                cursor.epoch,
                cursor.step,
                size(*bytes)
            ),
        );
    }
    let damaged: Vec<String> = skipped.iter().map(|file| file.error.to_string()).collect();
    if options.json {
        print_json(out, &json!({ "checkpoints": rows, "damaged": damaged }));
    } else {
        damaged.iter().for_each(|reason| line(out, format_args!("DAMAGED  {reason}")));
    }
    Ok(well)
}

fn verified(path: &Path) -> Result<()> {
    CheckpointFile::open(path)?.verify()
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes:>6} B "),
        10_000..10_000_000 => format!("{:>6.1} kB", bytes as f64 / 1e3),
        _ => format!("{:>6.1} MB", bytes as f64 / 1e6),
    }
}

fn inspect(options: &Options, out: &mut String) -> Result<bool> {
    let [path] = options.operands()?;
    let file = CheckpointFile::open(path)?;
    let state = file.metadata();
    let cursor = file.cursor();
    if options.json {
        let tensor = |info: &TensorInfo| {
            json!({
                "role": format!("{:?}", info.role).to_lowercase(), "name": info.name,
                "dtype": format!("{:?}", info.dtype).to_lowercase(), "shape": info.shape,
                "bytes": info.bytes,
            })
        };
        let value = json!({
            "path": path.to_string_lossy(), "bytes": file.bytes(), "writer": file.writer(),
            "generation": file.generation(), "digest": file.digest(),
            "metric": file.metric().map(|m| json!({ "name": m.name, "value": m.value })),
            "seed": cursor.seed, "epoch": cursor.epoch, "step": cursor.step,
            "position": cursor.position, "samples": cursor.samples,
            "config": state.config.iter().map(|(key, value)| (key.clone(), json!(value)))
                .collect::<serde_json::Map<_, _>>(),
            "optimizer": state.optimizer.kind, "schedule": state.schedule.spec,
            "hyper": state.optimizer.hyper.iter().map(|(key, value)| (key.clone(), json!(value)))
                .collect::<serde_json::Map<_, _>>(),
            "monitor": state.monitor, "history": state.history.columns,
            "tensors": file.tensors().iter().map(tensor).collect::<Vec<_>>(),
        });
        print_json(out, &value);
        return Ok(true);
    }
    let mut field = |name: &str, value: &dyn std::fmt::Display| {
        line(out, format_args!("{name:<12} {value}"));
    };
    field("file", &format!("{}, {}", path.display(), size(file.bytes()).trim()));
    field("written by", &file.writer());
    field("generation", &file.generation());
    field("digest", &file.digest());
    if let Some(metric) = file.metric() {
        field("metric", &format!("{} = {}", metric.name, metric.value));
    }
    field(
        "position",
        &format!("epoch {}, batch {}, step {}", cursor.epoch, cursor.position, cursor.step),
    );
    field("seed", &cursor.seed);
    let hyper = state.optimizer.hyper.iter().map(|(name, value)| format!(" {name}={value}"));
    field("optimizer", &format!("{}{}", state.optimizer.kind, hyper.collect::<String>()));
    field("schedule", &state.schedule.spec);
    field("monitor", &state.monitor);
    field("history", &state.history.columns.join(", "));
    for (key, value) in &state.config {
        field("config", &format!("{key} = {value}"));
    }
    for info in file.tensors() {
        let TensorInfo { role, dtype, name, shape, bytes, .. } = info;
        let role = format!("{role:?}").to_lowercase();
        let dtype = format!("{dtype:?}").to_lowercase();
        field(&role, &format!("{name} {dtype}{shape:?} {}", size(*bytes).trim()));
    }
    Ok(true)
}

fn verify(options: &Options, out: &mut String) -> Result<bool> {
    if options.paths.is_empty() {
        return Err(Error::config("verify", "give at least one file or run directory"));
    }
    let mut files = Vec::new();
    let mut rows = Vec::new();
    for path in &options.paths {
        if path.is_dir() {
            let (entries, skipped) = checkpoint::list(path)?;
            files.extend(entries.into_iter().map(|entry| entry.path));
            files.extend(skipped.into_iter().map(|file| file.path));
        } else {
            files.push(path.clone());
        }
    }
    let mut well = true;
    for path in files {
        let result = verified(&path);
        well &= result.is_ok();
        let reason = result.err().map(|error| error.to_string());
        if options.json {
            rows.push(json!({
                "path": path.to_string_lossy(), "valid": reason.is_none(), "reason": reason,
            }));
        } else {
            match reason {
                None => line(out, format_args!("{}: valid", path.display())),
                Some(reason) => line(out, format_args!("{reason}")),
            }
        }
    }
    if options.json {
        print_json(out, &Value::Array(rows));
    }
    Ok(well)
}

fn diff(options: &Options, out: &mut String) -> Result<bool> {
    let [a, b] = options.operands()?;
    let (a, b) = (CheckpointFile::open(a)?, CheckpointFile::open(b)?);
    let find = |file: &CheckpointFile, info: &TensorInfo| {
        let mut tensors = file.tensors().iter();
        tensors.find(|other| (other.role, &other.name) == (info.role, &info.name)).cloned()
    };
    let mut rows = Vec::new();
    let mut differ = |role: Role, name: &str, what: String, numbers: Value| {
        let role = format!("{role:?}").to_lowercase();
        if options.json {
            rows.push(json!({ "role": role, "name": name, "what": what, "numbers": numbers }));
        } else {
            line(out, format_args!("{role:<8} {name}: {what}"));
        }
    };
    for info in a.tensors() {
        let (role, name) = (info.role, info.name.as_str());
        match find(&b, info) {
            None => differ(role, name, "only in the first".into(), Value::Null),
            Some(other) if other.shape != info.shape => {
                let what = format!("shape {:?} and {:?}", info.shape, other.shape);
                differ(role, name, what, Value::Null);
            }
            Some(other) if other.checksum == info.checksum => {}
            Some(_) if info.dtype != Dtype::F32 || role == Role::History => {
                differ(role, name, "other values".into(), Value::Null);
            }
            Some(_) => {
                let (x, y) = (a.read_tensor(role, name)?, b.read_tensor(role, name)?);
                let (max, rms) = distance(&x, &y);
                let what = format!("largest difference {max:.3e}, rms {rms:.3e}");
                differ(role, name, what, json!({ "max": max, "rms": rms }));
            }
        }
    }
    for info in b.tensors().iter().filter(|info| find(&a, info).is_none()) {
        differ(info.role, &info.name, "only in the second".into(), Value::Null);
    }
    let same = a.digest() == b.digest();
    let metadata = a.metadata() == b.metadata();
    if options.json {
        print_json(out, &json!({ "same": same, "metadata_same": metadata, "tensors": rows }));
    } else {
        if !metadata {
            line(out, format_args!("the metadata differs (configuration, position or settings)"));
        }
        if same {
            line(out, format_args!("the same state, {}", a.digest()));
        }
    }
    Ok(same)
}

/// The largest and the root mean square difference of two tensors of one shape.
fn distance(x: &NamedTensor<'_>, y: &NamedTensor<'_>) -> (f64, f64) {
    let differences = x.data.iter().zip(y.data.iter()).map(|(&x, &y)| f64::from(x) - f64::from(y));
    let (max, sum) =
        differences.fold((0.0_f64, 0.0), |(max, sum), d| (max.max(d.abs()), sum + d * d));
    (max, (sum / x.data.len().max(1) as f64).sqrt())
}

/// The two formats of other programs.
fn is_npz(path: &Path) -> Result<bool> {
    match path.extension().map(OsString::from).as_deref().and_then(|e| e.to_str()) {
        Some("safetensors") => Ok(false),
        Some("npz") => Ok(true),
        _ => Err(Error::config(path.display().to_string(), "expected .safetensors or .npz")),
    }
}

fn export(options: &Options, out: &mut String) -> Result<bool> {
    let [from, to] = options.operands()?;
    let npz = is_npz(to)?;
    let mut state = CheckpointFile::open(from)?.read_state()?;
    let mut tensors = std::mem::take(&mut state.params);
    if options.all {
        let prefixed = |prefix: &'static str| {
            move |mut tensor: NamedTensor<'static>| {
                tensor.name.insert_str(0, prefix);
                tensor
            }
        };
        tensors.extend(state.buffers.into_iter().map(prefixed("buffer.")));
        tensors.extend(state.optimizer.slots.into_iter().map(prefixed("optimizer.")));
    } else {
        // As in a PyTorch state_dict: parameters and buffers side by side.
        tensors.append(&mut state.buffers);
    }
    if npz {
        save_npz(to, &tensors)?;
    } else {
        checkpoint::save_safetensors(to, &tensors)?;
    }
    line(out, format_args!("{} tensors written to {}", tensors.len(), to.display()));
    Ok(true)
}

#[cfg(feature = "gzip")]
use checkpoint::{load_npz, save_npz};

#[cfg(not(feature = "gzip"))]
fn save_npz(path: &Path, _: &[NamedTensor<'_>]) -> Result<()> {
    Err(Error::config(path.display().to_string(), ".npz needs the feature gzip"))
}

#[cfg(not(feature = "gzip"))]
fn load_npz(path: &Path) -> Result<Vec<NamedTensor<'static>>> {
    Err(Error::config(path.display().to_string(), ".npz needs the feature gzip"))
}

fn import(options: &Options, out: &mut String) -> Result<bool> {
    let [from, dir] = options.operands()?;
    let params = if is_npz(from)? { load_npz(from)? } else { checkpoint::load_safetensors(from)? };
    let config = vec![("imported from".to_owned(), from.display().to_string())];
    let state = TrainingState { config, params, ..TrainingState::default() };
    let saved = Checkpoints::open(dir)?.save(&state, None)?;
    line(out, format_args!("{} tensors saved as {}", state.params.len(), saved.path.display()));
    Ok(true)
}

fn pin(options: &Options, out: &mut String) -> Result<bool> {
    let [dir, generation] = options.operands()?;
    let text = generation.to_string_lossy();
    let number = text
        .parse()
        .map_err(|_| Error::config("generation", format!("{text:?} is not a number")))?;
    existing(dir)?.set_pinned(number, options.command == "pin")?;
    line(out, format_args!("generation {number} is {}ned", options.command));
    Ok(true)
}

/// Opens a run directory that must be there: looking for one should not create it.
fn existing(dir: &Path) -> Result<Checkpoints> {
    checkpoint::list(dir)?;
    Checkpoints::open(dir)
}

fn prune(options: &Options, out: &mut String) -> Result<bool> {
    let [dir] = options.operands()?;
    let mut checkpoints = existing(dir)?.retention(options.retention.clone());
    let removed = checkpoints.prune()?;
    if options.json {
        let names: Vec<_> = removed.iter().map(|path| path.to_string_lossy()).collect();
        print_json(out, &json!({ "removed": names }));
    } else {
        removed.iter().for_each(|path| line(out, format_args!("removed {}", path.display())));
        line(out, format_args!("{} kept", checkpoints.entries().len()));
    }
    Ok(true)
}
