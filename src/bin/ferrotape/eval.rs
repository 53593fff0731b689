//! `ferrotape eval`: how good a saved model is on labelled data.

use ferrotape::config::{Names, Part, Saved};
use ferrotape::data::{Dataset, Subset};
use ferrotape::metrics::ClassScores;
use ferrotape::numbers::percent;
use ferrotape::trainer::Evaluation;
use serde_json::json;

use super::output::{Output, Table, number};
use super::{Arguments, Command, Exit, source};

pub(crate) const COMMAND: Command = Command {
    name: "eval",
    summary: "measure a saved model on labelled data",
    help: "\
Measures a saved model: loss, accuracy, how often each class is taken for each other one, precision,
recall and F1; of one that predicts values, the mean squared and the mean absolute error. The
checkpoint knows the model, its normalisation and its classes.

Usage: ferrotape eval FILE.ftape|RUN_DIR DATA [OPTIONS]

DATA is a directory of IDX files, of CIFAR-10 binary files or of PNG images per class, a CSV or npz
file, or two IDX files, images and labels. Of a run directory the best checkpoint is taken.

      --split PART    all (the default; of data with test files of their own, these), or, of the
                      data that the run was trained on, train, valid or test
      --last          the last checkpoint of the run directory, not the best
      --label NAME    the column of labels, or values, in a CSV file
      --inputs NAME   the array of inputs in an npz file
      --labels NAME   the array of labels, or values, in an npz file
",
    run,
};

fn run(mut arguments: Arguments, out: &mut Output) -> Result<bool, Exit> {
    let (mut part, mut best, mut names) = (Part::All, true, Names::default());
    while let Some(option) = arguments.option()? {
        match option.as_str() {
            "split" => {
                let name: String = arguments.value()?;
                part = match name.as_str() {
                    "all" => Part::All,
                    "train" => Part::Train,
                    "valid" => Part::Valid,
                    "test" => Part::Test,
                    _ => return Err(arguments.refused(name, "expected all, train, valid or test")),
                };
            }
            "last" => best = false,
            "label" => names.label = Some(arguments.value()?),
            "inputs" => names.inputs = Some(arguments.value()?),
            "labels" => names.labels = Some(arguments.value()?),
            _ => return arguments.unknown(&option),
        }
    }
    let ([run, data], labels) = arguments.some_operands(["FILE.ftape|RUN_DIR", "DATA"])?;
    if let Some(surplus) = labels.get(1) {
        return Err(Exit::Usage(format!("{} is one operand too many", surplus.display())));
    }
    let file = source::open(run, best)?;
    let saved = Saved::new(&file.read_state()?)?;
    let data = saved.read(data, labels.first().copied(), part, &names)?;
    let found = saved.evaluate(&data);
    if saved.classes.is_empty() {
        values(&found, &data, arguments.json, out);
    } else {
        classes(&saved, &found, &data, arguments.json, out);
    }
    Ok(true)
}

/// What was found of values that were to be predicted.
fn values(found: &Evaluation, data: &Subset, as_json: bool, out: &mut Output) {
    let (loss, error, mae) = (found.loss, found.standard_error, found.mean_absolute_error);
    if as_json {
        return out.json(&json!({
            "examples": data.len(), "loss": loss, "standard_error": error, "mae": mae,
        }));
    }
    out.line(format!("{} examples of {}", data.len(), data.name()));
    out.line(format!("mean squared error   {} ± {}", number(loss), number(error)));
    out.line(format!("mean absolute error  {}", number(mae)));
}

/// What was found of classes.
fn classes(saved: &Saved, found: &Evaluation, data: &Subset, as_json: bool, out: &mut Output) {
    let scores: Vec<(String, ClassScores)> = saved
        .classes
        .iter()
        .enumerate()
        .map(|(class, name)| (name.clone(), found.confusion.class(class)))
        .collect();
    let average = found.confusion.macro_average();
    let classes = scores.len();
    if as_json {
        let per_class = scores.iter().map(|(name, s)| {
            json!({
                "class": name, "precision": s.precision, "recall": s.recall, "f1": s.f1,
                "support": s.support,
            })
        });
        let confusion = (0..classes).map(|label| {
            (0..classes).map(|predicted| found.confusion.count(label, predicted)).collect()
        });
        return out.json(&json!({
            "examples": data.len(),
            "loss": found.loss,
            "standard_error": found.standard_error,
            "accuracy": found.accuracy,
            "top5_accuracy": found.top5_accuracy,
            "macro": { "precision": average.precision, "recall": average.recall, "f1": average.f1 },
            "classes": per_class.collect::<Vec<_>>(),
            "confusion": confusion.collect::<Vec<Vec<u64>>>(),
        }));
    }
    out.line(format!("{} examples of {}", data.len(), data.name()));
    out.line(format!("loss      {} ± {}", number(found.loss), number(found.standard_error)));
    out.line(format!("accuracy  {}", percent(found.accuracy)));
    if classes > 5 {
        out.line(format!("top 5     {}", percent(found.top5_accuracy)));
    }
    out.line("");
    let mut table = Table::new(&["class", ">precision", ">recall", ">F1", ">examples"]);
    for (name, s) in scores.into_iter().chain([("mean".to_owned(), average)]) {
        let [precision, recall, f1] = [s.precision, s.recall, s.f1].map(percent);
        table.row([name, precision, recall, f1, s.support.to_string()]);
    }
    table.print(out);
    if classes <= 40 {
        out.line("\nrows: the class; columns: what it was taken for");
        let headings: Vec<String> = [String::new()]
            .into_iter()
            .chain(saved.classes.iter().map(|n| format!(">{n}")))
            .collect();
        let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
        let mut table = Table::new(&headings);
        for (label, name) in saved.classes.iter().enumerate() {
            let counts = (0..classes).map(|p| found.confusion.count(label, p).to_string());
            table.row([name.clone()].into_iter().chain(counts));
        }
        table.print(out);
    }
}
