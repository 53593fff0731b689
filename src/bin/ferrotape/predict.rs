//! `ferrotape predict`: what a saved model takes inputs for.

use ferrotape::config::{Names, Saved};
use ferrotape::metrics::argmax;
use ferrotape::numbers::percent;
use serde_json::{Map, Value, json};

use super::output::{Output, Table, number};
use super::{Arguments, Command, Exit, source};

pub(crate) const COMMAND: Command = Command {
    name: "predict",
    summary: "what a saved model makes of images or rows of numbers",
    help: "\
Says for each input which class it most likely is, and how likely, or the values that the model
predicts. The checkpoint knows the model, its normalisation and its classes.

Usage: ferrotape predict FILE.ftape|RUN_DIR INPUT... [OPTIONS]

An INPUT is a PNG image, an IDX file of images, a CIFAR-10 binary file, a CSV file (a column of
labels is left out) or an npz file. Of a run directory the best checkpoint is taken.

      --last          the last checkpoint of the run directory, not the best
      --label NAME    the column of labels in a CSV file, to be left out
      --inputs NAME   the array of inputs in an npz file

With --json there is one object per input and line: input, index, class, probability, and the
probabilities of all classes; or input, index and values.
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
    let ([run, first], others) = arguments.some_operands(["FILE.ftape|RUN_DIR", "INPUT"])?;
    let saved = Saved::new(&source::open(run, best)?.read_state()?)?;
    let mut table = match saved.classes.is_empty() {
        true => Table::new(&["input", ">index", ">values"]),
        false => Table::new(&["input", ">index", "class", ">probability"]),
    };
    for path in [first].into_iter().chain(others) {
        let data = saved.read_inputs(path, &names)?;
        for (index, outputs) in saved.predict(&data).into_iter().enumerate() {
            if arguments.json {
                let mut line = answer(&saved, &outputs);
                line["input"] = json!(path);
                line["index"] = json!(index);
                out.block(&format!("{line}\n"));
                continue;
            }
            let input = [path.display().to_string(), index.to_string()];
            table.row(input.into_iter().chain(cells(&saved, &outputs)));
        }
    }
    if !arguments.json {
        table.print(out);
    }
    Ok(true)
}

/// The cells of a row of the table: a class and its probability, or values.
fn cells(saved: &Saved, outputs: &[f32]) -> Vec<String> {
    if saved.classes.is_empty() {
        let values = outputs.iter().map(|&value| number(value.into()));
        return vec![values.collect::<Vec<_>>().join(" ")];
    }
    let class = argmax(outputs);
    vec![saved.classes[class].clone(), percent(outputs[class].into())]
}

/// What a model gave for one input: probabilities of classes, or values.
fn answer(saved: &Saved, outputs: &[f32]) -> Value {
    if saved.classes.is_empty() {
        return json!({ "values": outputs });
    }
    let class = argmax(outputs);
    let all = saved.classes.iter().cloned().zip(outputs.iter().map(|&p| json!(p)));
    json!({
        "class": saved.classes[class], "probability": outputs[class],
        "probabilities": all.collect::<Map<String, Value>>(),
    })
}
