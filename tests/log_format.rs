//! `docs/log-format.md` tells the truth: its example has the keys of a real log, and all of them.

use std::collections::BTreeSet;

use ferrotape::Params;
use ferrotape::checkpoint::Checkpoints;
use ferrotape::data::ArrayDataset;
use ferrotape::monitor::{EarlyStopping, compare, read_log};
use ferrotape::nn::{Layer, Sequential};
use ferrotape::optim::Sgd;
use ferrotape::trainer::{JsonLines, Trainer};
use serde_json::Value;

/// The paths of all keys in an object, and in those of its lists.
fn keys(value: &Value, prefix: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                into.insert(format!("{prefix}{key}"));
                keys(value, &format!("{prefix}{key}."), into);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| keys(value, prefix, into)),
        _ => {}
    }
}

fn keys_of(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    keys(value, "", &mut found);
    found
}

#[test]
fn the_example_of_the_documentation_is_a_line_of_a_log() {
    let document = include_str!("../docs/log-format.md");
    let example =
        document.split("```json").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let line: Value = serde_json::from_str(example).unwrap();
    let history = read_log("docs".as_ref(), &line.to_string()).unwrap();
    assert_eq!((history[0].epoch, history[0].step, history[0].valid_loss), (14, 3500, 0.0302));
    assert_eq!(history[0].metrics.len(), 6, "what is no measurement is no metric");
    let explained = document.split("```").nth(2).unwrap();
    for key in keys_of(&line) {
        let name = key.rsplit('.').next().unwrap();
        let named = [&*key, name].iter().any(|name| explained.contains(&format!("`{name}`")));
        assert!(named, "{key} is not explained");
    }

    let dir = std::env::temp_dir().join(format!("ferrotape-log-format-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let log = dir.join("log.jsonl");
    let data = ArrayDataset::new(
        "xor",
        &[2],
        vec![0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0],
        vec![0, 1, 1, 0],
        2,
    )
    .unwrap();
    let mut params = Params::new(0);
    let model = Sequential::new(&mut params, [Layer::linear(2, 2)]);
    let spec: EarlyStopping = "any(patience(5),gl(40))".parse().unwrap();
    Trainer::new(model, params, Sgd::new(0.1))
        .monitor(spec.clone())
        .checkpoints(Checkpoints::open(&dir).unwrap())
        .epochs(5)
        .callback(JsonLines::new(&log))
        .fit(&data, &data)
        .unwrap();
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_dir_all(dir).unwrap();
    let written: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(written.len(), 5);
    assert_eq!(keys_of(&written[4]), keys_of(&line));
    assert_eq!(written[0]["resumed"], false);
    let history = read_log(&log, &text).unwrap();
    assert_eq!(compare(&[spec], &history).unwrap()[0].stop_epoch, None);
}

#[test]
fn a_run_that_met_nan_is_replayed_as_it_was() {
    let log = std::env::temp_dir().join(format!("ferrotape-log-nan-{}.jsonl", std::process::id()));
    let data = |corner| {
        let inputs = vec![0.0, 0.0, 0.0, 1.0, 1.0, 0.0, corner, 1.0];
        ArrayDataset::new("xor", &[2], inputs, vec![0, 1, 1, 0], 2).unwrap()
    };
    for (text, stops_at) in [("patience(3)", 1), ("patience(2), nan_policy=count_as_bad", 2)] {
        let spec: EarlyStopping = text.parse().unwrap();
        let mut params = Params::new(0);
        let model = Sequential::new(&mut params, [Layer::linear(2, 2)]);
        let outcome = Trainer::new(model, params, Sgd::new(0.1))
            .monitor(spec.clone())
            .epochs(5)
            .callback(JsonLines::new(&log))
            .fit(&data(1.0), &data(f32::NAN))
            .unwrap();
        assert_eq!(outcome.history.last().unwrap().epoch, stops_at, "{text}");
        let written = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(&log).unwrap();
        let history = read_log(&log, &written).unwrap();
        assert!(history.iter().all(|seen| seen.valid_loss.is_nan()), "{written}");
        assert_eq!(compare(&[spec], &history).unwrap()[0].stop_epoch, Some(stops_at), "{text}");
    }
}
