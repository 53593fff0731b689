//! `ferrotape predict`: what a saved model takes inputs for.

use ferrotape::config::{Names, Saved};
use ferrotape::metrics::argmax;
use ferrotape::numbers::percent;
use serde_json::{Map, Value, json};

use super::output::{Output, Table};
use super::{Arguments, Command, Exit, source};

pub(crate) const COMMAND: Command = Command {
    name: "predict",
    summary: "classify images or rows of numbers with a saved model",
    help: "\
Says for each input which class it most likely is, and how likely. The checkpoint knows the model,
its normalisation and its classes.

Usage: ferrotape predict FILE.ftape|RUN_DIR INPUT... [OPTIONS]

An INPUT is a PNG image, an IDX file of images, a CSV file (a column of labels is left out) or an
npz file. Of a run directory the best checkpoint is taken.

      --last          the last checkpoint of the run directory, not the best
      --label NAME    the column of labels in a CSV file, to be left out
      --inputs NAME   the array of inputs in an npz file

With --json there is one object per input and line: input, index, class, probability, and the
probabilities of all classes.
",
    run,
};

fn run(mut arguments: Arguments, out: &mut Output) -> Result<bool, Exit> {
    let (mut best, mut names) = (true, Names::default());
    while let Some(option) = arguments.option()? {
        match option.as_str() {
            "last" => best = false,
            "label" => names.label = Some(arguments.value()?),
            "inputs" => names.inputs = Some(arguments.value()?),
            _ => return arguments.unknown(&option),
        }
    }
    let operands = arguments.some_operands()?;
    let [run, inputs @ ..] = &operands[..] else { unreachable!("at least one") };
    if inputs.is_empty() {
        return Err(Exit::Usage("no input given".into()));
    }
    let saved = Saved::new(&source::open(run, best)?.read_state()?)?;
    let mut table = Table::new(&["input", ">index", "class", ">probability"]);
    for path in inputs {
        let data = saved.read_inputs(path, &names)?;
        for (index, probabilities) in saved.predict(&data).into_iter().enumerate() {
            let class = argmax(&probabilities);
            let (name, p) = (&saved.classes[class], probabilities[class]);
            if arguments.json {
                let all: Map<String, Value> = saved
                    .classes
                    .iter()
                    .cloned()
                    .zip(probabilities.iter().map(|&p| json!(p)))
                    .collect();
                let line = json!({
                    "input": path, "index": index, "class": name, "probability": p,
                    "probabilities": all,
                });
                out.block(&format!("{line}\n"));
            } else {
                let input = path.display().to_string();
                table.row([input, index.to_string(), name.clone(), percent(p.into())]);
            }
        }
    }
    if !arguments.json {
        table.print(out);
    }
    Ok(true)
}
