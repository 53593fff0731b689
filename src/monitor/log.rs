//! Reads recorded runs, also those of other programs: JSON lines, one object per evaluation.

use std::path::Path;

use serde_json::Value;

use super::observation::Observation;
use crate::error::{DataFault, Error, Result};

/// Reads the text of a JSONL log.
///
/// A line is an evaluation if it has a `valid_loss`; its `epoch`, counted from 1, is needed too. In
/// programs that write fractions an epoch of 1.5 lies in the second one, and is read as 2.
/// `train_loss`, `valid_loss_se`, `step`, `lr` and `elapsed` are understood, as is `metrics`, an
/// object of numbers. Any other numeric key becomes a metric of its name, which no rule looks at
/// unless told to. Everything else is ignored, and so are empty lines and those whose `valid_loss`
/// is `null` or not there: it was not measured. One that was, and was not finite, is a string such
/// as `"NaN"` or `"inf"`, or the bare `NaN` or `Infinity` that Python writes.
///
/// Training goes forward: an epoch or a step before that of the evaluation before is an error. An
/// epoch may have several evaluations.
///
/// `path` is only used in messages.
///
/// ```
/// use ferrotape::monitor::read_log;
/// let text = "{\"epoch\": 1, \"train_loss\": 0.9, \"valid_loss\": 1.1, \"accuracy\": 0.6}\n\
///             {\"epoch\": 2, \"train_loss\": 0.5, \"valid_loss\": null}\n\
///             {\"epoch\": 3, \"valid_loss\": NaN}\n";
/// let history = read_log("log.jsonl".as_ref(), text)?;
/// assert_eq!(history[0].value("accuracy"), Some(0.6));
/// assert!(history[1].epoch == 3 && history[1].valid_loss.is_nan());
/// # Ok::<(), ferrotape::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Data`] with the line's number if a line is not a JSON object, if an evaluation has no
/// usable epoch or a loss that is no number, if it lies before the last one, or if there is no
/// evaluation at all.
pub fn read_log(path: &Path, text: &str) -> Result<Vec<Observation>> {
    let mut history: Vec<Observation> = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let fault = |reason| {
            Error::data(path, DataFault::Other { message: format!("line {number}: {reason}") })
        };
        let Some(seen) = evaluation(line).map_err(fault)? else { continue };
        if let Some(last) = history.last() {
            forward(last, &seen).map_err(fault)?;
        }
        history.push(seen);
    }
    if history.is_empty() {
        let message = "no evaluation found: expected one JSON object per line with `epoch` and \
                       `valid_loss`";
        return Err(Error::data(path, DataFault::Other { message: message.to_owned() }));
    }
    Ok(history)
}

/// Refuses an evaluation from before the last one.
fn forward(last: &Observation, seen: &Observation) -> Result<(), String> {
    let places = [("epoch", last.epoch, seen.epoch), ("step", last.step, seen.step)];
    // Step 0 means that it was not recorded.
    match places.into_iter().find(|&(_, last, seen)| 0 < seen && seen < last) {
        None => Ok(()),
        Some((unit, last, seen)) => Err(format!(
            "{unit} {seen} after {unit} {last}: two runs in one log? Keep the lines of one"
        )),
    }
}

/// The evaluation that a line records, if it does.
fn evaluation(line: &str) -> Result<Option<Observation>, String> {
    let parsed = serde_json::from_str(line).or_else(|_| serde_json::from_str(&quoted(line)));
    let Value::Object(object) = parsed.map_err(|e| format!("not valid JSON: {e}"))? else {
        return Err("expected a JSON object".to_owned());
    };
    let measured = object.get("valid_loss").filter(|value| !value.is_null());
    let Some(loss) = measured else { return Ok(None) };
    let valid_loss = float(loss).ok_or_else(|| format!("valid_loss is no number: {loss}"))?;
    let epoch = object.get("epoch").ok_or("an evaluation without an epoch")?;
    let epoch = float(epoch).map(f64::ceil).filter(|&e| e >= 1.0 && e < 2f64.powi(53));
    let epoch =
        epoch.ok_or("the epoch must be a number above 0: epochs are counted from 1")? as u64;

    let mut seen = Observation::new(epoch, valid_loss);
    for (key, value) in &object {
        match (key.as_str(), value) {
            ("epoch" | "valid_loss", _) | (_, Value::Null) => {}
            ("train_loss", value) => {
                let loss =
                    float(value).ok_or_else(|| format!("train_loss is no number: {value}"))?;
                seen.train_loss = Some(loss);
            }
            ("valid_loss_se", value) => seen.valid_loss_se = float(value),
            ("lr", value) => seen.lr = float(value),
            ("elapsed", value) => seen.elapsed = float(value),
            ("step", value) => seen.step = value.as_u64().unwrap_or(0),
            ("metrics", Value::Object(metrics)) => {
                let numbers =
                    metrics.iter().filter_map(|(name, v)| Some((name.clone(), float(v)?)));
                seen.metrics.extend(numbers);
            }
            (_, value) => seen.metrics.extend(float(value).map(|v| (key.clone(), v))),
        }
    }
    Ok(Some(seen))
}

/// A JSON number, or a string that names a value JSON has no number for.
fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok().filter(|x: &f64| !x.is_finite()),
        _ => None,
    }
}

/// The line with the bare `NaN`, `Infinity` and `-Infinity` that Python writes as strings.
fn quoted(line: &str) -> String {
    let mut result = String::with_capacity(line.len() + 8);
    let mut rest = line;
    let mut inside_string = false;
    while let Some(c) = rest.chars().next() {
        let words = ["NaN", "Infinity", "-Infinity"];
        let word = words.into_iter().find(|word| !inside_string && rest.starts_with(word));
        let taken = match (word, c) {
            (Some(word), _) => word.len(),
            // An escaped character is never the end of a string.
            (None, '\\') => rest.char_indices().nth(2).map_or(rest.len(), |(at, _)| at),
            (None, c) => c.len_utf8(),
        };
        inside_string ^= c == '"';
        let mark = if word.is_some() { "\"" } else { "" };
        result.extend([mark, &rest[..taken], mark]);
        rest = &rest[taken..];
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Observation>> {
        read_log(Path::new("run.jsonl"), text)
    }

    #[test]
    fn what_counts_as_an_evaluation() {
        let text = r#"
            {"config": {"epochs": 3}, "epoch": 0}
            {"epoch": 1.0, "valid_loss": 2, "train_loss": null, "step": 7, "lr": 0.1, "note": "x"}
            {"valid_loss": null, "train_loss": 0.1}
            {"epoch": 2, "valid_loss": "NaN", "train_loss": 0.1, "metrics": {"accuracy": 0.5, "a": "b"}}
            {"epoch": 3, "valid_loss": -Infinity, "acc": Infinity, "say": "\"NaN", "f1": 0.25}"#;
        let history = read(text).unwrap();
        assert_eq!(history.len(), 3);
        let first = Observation { step: 7, lr: Some(0.1), ..Observation::new(1, 2.0) };
        assert_eq!(history[0], first);
        assert!(history[1].valid_loss.is_nan());
        assert_eq!(history[1].train_loss, Some(0.1));
        assert_eq!(history[1].names(), ["valid_loss", "train_loss", "accuracy"]);
        assert_eq!(history[2].valid_loss, f64::NEG_INFINITY);
        assert_eq!(history[2].names(), ["valid_loss", "acc", "f1"]);
    }

    #[test]
    fn an_observation_written_as_json_is_read_back() {
        let mut seen = Observation::new(4, f64::INFINITY).with_train_loss(0.1 + 0.2);
        seen = Observation { step: 9, lr: Some(0.5), elapsed: Some(1.5), ..seen };
        seen = seen.with_metric("accuracy", 1.0 / 3.0);
        assert_eq!(read(&serde_json::to_string(&seen).unwrap()).unwrap(), [seen]);
    }

    #[test]
    fn a_fraction_of_an_epoch_lies_in_the_one_that_is_not_over() {
        let line = |epoch| format!("{{\"epoch\": {epoch}, \"valid_loss\": 1}}\n");
        let text: String = [0.25, 0.5, 1.0, 1.5, 2.0, 2.01].map(line).concat();
        let epochs: Vec<u64> = read(&text).unwrap().iter().map(|seen| seen.epoch).collect();
        assert_eq!(epochs, [1, 1, 1, 2, 2, 3]);
    }

    #[test]
    fn training_goes_forward() {
        let log = |places: &[(u64, u64)]| -> String {
            let line = |(epoch, step)| {
                format!("{{\"epoch\": {epoch}, \"step\": {step}, \"valid_loss\": 1}}\n")
            };
            places.iter().copied().map(line).collect()
        };
        for places in [&[(1, 5), (1, 10), (2, 15), (2, 15)], &[(1, 0), (1, 0), (7, 0), (9, 0)]] {
            assert_eq!(read(&log(places)).unwrap().len(), 4);
        }
        for (text, piece) in [
            (log(&[(1, 0), (2, 0), (3, 0), (1, 0)]), "line 4: epoch 1 after epoch 3: two runs"),
            (log(&[(1, 9), (1, 8)]), "line 2: step 8 after step 9: two runs in one log?"),
            (log(&[(2, 9)]) + "{\"epoch\": 0}\n\n" + &log(&[(1, 9)]), "line 4: epoch 1 after"),
        ] {
            let message = read(&text).unwrap_err().to_string();
            assert!(message.contains(piece), "{text}: {message}");
        }
    }

    #[test]
    fn faults_name_the_file_and_the_line() {
        for (text, piece) in [
            ("", "run.jsonl: no evaluation found"),
            ("{\"epoch\": 1}", "no evaluation found"),
            ("\n[1]", "line 2: expected a JSON object"),
            ("epoch,valid_loss", "line 1: not valid JSON"),
            (r#"{"valid_loss": 1}"#, "line 1: an evaluation without an epoch"),
            (r#"{"epoch": 0, "valid_loss": 1}"#, "counted from 1"),
            (r#"{"epoch": -0.5, "valid_loss": 1}"#, "a number above 0"),
            (r#"{"epoch": NaN, "valid_loss": 1}"#, "a number above 0"),
            (r#"{"epoch": 1e300, "valid_loss": 1}"#, "a number above 0"),
            (r#"{"epoch": 1, "valid_loss": "low"}"#, "valid_loss is no number: \"low\""),
            (r#"{"epoch": 1, "valid_loss": 1, "train_loss": []}"#, "train_loss is no number"),
            (r#"{"epoch": 1, "valid_loss": null}"#, "no evaluation found"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(piece), "{text}: {message}");
        }
    }
}
