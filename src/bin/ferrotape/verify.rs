//! `ferrotape verify`: is every byte as it was written?

use ferrotape::Error;
use serde_json::json;

use super::output::Output;
use super::source::{is_gone, list, verify};
use super::{Arguments, Command, Exit};

pub(crate) const COMMAND: Command = Command {
    name: "verify",
    summary: "read every byte of files, or of all files of runs",
    help: "\
Reads every byte of checkpoint files, or of all checkpoint files of run directories, and says of
each whether it is valid, or where it is damaged and how.

Usage: ferrotape verify FILE|RUN_DIR...
",
    run,
};

fn run(mut arguments: Arguments, out: &mut Output) -> Result<bool, Exit> {
    if let Some(option) = arguments.option()? {
        return arguments.unknown(&option);
    }
    let (mut rows, mut well) = (Vec::new(), true);
    let ([first], others) = arguments.some_operands(["FILE|RUN_DIR"])?;
    for path in [first].into_iter().chain(others) {
        let mut files = vec![path.to_owned()];
        if path.is_dir() {
            let (entries, skipped) = list(path)?;
            files = entries.into_iter().map(|entry| entry.path).collect();
            files.extend(skipped.into_iter().map(|file| file.path));
            files.sort();
            if files.is_empty() {
                let name = path.display().to_string();
                return Err(Error::config(name, "this directory holds no checkpoint").into());
            }
        }
        for file in files {
            let error = verify(&file).err();
            if path.is_dir() && error.as_ref().is_some_and(is_gone) {
                continue; // deleted by the running training that it belongs to
            }
            well &= error.is_none();
            if !arguments.json {
                match &error {
                    None => out.line(format!("{}: valid", file.display())),
                    Some(error) => out.line(error),
                }
            }
            rows.push(json!({
                "path": file.to_string_lossy(), "valid": error.is_none(),
                "reason": error.map(|error| error.to_string()),
            }));
        }
    }
    if arguments.json {
        out.json(&rows.into());
    }
    Ok(well)
}
