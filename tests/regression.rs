//! Predicting values instead of classes: the trainer is the plain loop, stops early, is resumed to
//! the bit, and tells what there is to tell.

use std::path::Path;

use common::scratch;
use ferrotape::checkpoint::Checkpoints;
use ferrotape::data::{ArrayDataset, Batches, Dataset};
use ferrotape::monitor::EarlyStopping;
use ferrotape::nn::{Layer, Module, Sequential};
use ferrotape::optim::Sgd;
use ferrotape::report::HtmlReport;
use ferrotape::rng::{Purpose, Stream};
use ferrotape::trainer::{JsonLines, Resume, Trainer, evaluate, predict_values};
use ferrotape::{Graph, Params, Tape, metrics};

mod common;

/// `y = (sin x, x^2)` under noise, at random places.
fn waves(n: usize, noise: f32, seed: u64) -> ArrayDataset {
    let mut stream = Stream::new(seed, Purpose::User(1), 0, 0);
    let mut x = vec![0.0; n];
    stream.fill_uniform(&mut x, -1.5, 1.5);
    let y = x.iter().flat_map(|x| [x.sin(), x * x]);
    let y = y.map(|y| y + noise * stream.normal()).collect();
    ArrayDataset::unlabelled("waves", &[1], x).unwrap().with_targets(y).unwrap()
}

fn network(seed: u64) -> (Sequential, Params) {
    let mut params = Params::new(seed);
    let layers = [Layer::linear(1, 16), Layer::Tanh, Layer::linear(16, 2)];
    let model = Sequential::new(&mut params, layers);
    (model, params)
}

fn trainer() -> Trainer<Sequential> {
    let (model, params) = network(3);
    Trainer::new(model, params, Sgd::new(0.05).momentum(0.9))
        .batch_size(16)
        .epochs(200)
        .monitor(EarlyStopping::patience(5))
}

#[test]
fn the_trainer_is_the_plain_loop() {
    let (train, valid) = (waves(100, 0.1, 1), waves(50, 0.1, 2));
    let (model, mut params) = network(3);
    let mut sgd = Sgd::new(0.05).momentum(0.9);
    let mut tape = Tape::new();
    let mut batches = Batches::new(&train, 16).shuffled(3);
    let mut losses = Vec::new();
    for epoch in 0..4 {
        batches.seek(epoch, 0);
        while let Some(batch) = batches.next() {
            let mut g = Graph::new(&mut tape, &params);
            let (x, y) = (g.input(&batch.inputs), g.input(&batch.targets));
            let predicted = model.forward(&mut g, x);
            let loss = g.mse(predicted, y);
            let gradients = g.backward(loss);
            sgd.step(&mut params, &gradients);
        }
        losses.push(evaluate(&model, &params, &valid).loss);
    }
    let outcome = trainer().epochs(4).fit(&train, &valid).unwrap();
    assert_eq!(outcome.history.iter().map(|o| o.valid_loss).collect::<Vec<_>>(), losses);
    assert_eq!(outcome.params.flat(), params.flat(), "the last is the best");
    // Two pieces of 8 are a batch of 16, but for rounding.
    let pieces = trainer().batch_size(8).accumulate(2).epochs(4).fit(&train, &valid).unwrap();
    assert!((pieces.history[3].valid_loss - losses[3]).abs() < 1e-4 * losses[3]);
}

#[test]
fn an_evaluation_measures_each_example() {
    let data = waves(300, 0.1, 1);
    let (model, params) = network(3);
    let found = evaluate(&model, &params, &data);
    let mut batches = Batches::new(&data, 300);
    let batch = batches.next().unwrap();
    let mut tape = Tape::new();
    let mut g = Graph::eval(&mut tape, &params);
    let x = g.input(&batch.inputs);
    let predicted = model.forward(&mut g, x);
    let (predicted, targets) = (g.value(predicted), batch.targets.data());
    assert_eq!(predict_values(&model, &params, &batch.inputs), predicted);
    let close = |a: f64, b: f64| (a - b).abs() < 1e-6 * b;
    assert!(close(found.loss, metrics::mean_squared_error(predicted, targets)));
    let mae = found.mean_absolute_error;
    assert!(close(mae, metrics::mean_absolute_error(predicted, targets)));
    assert_eq!((found.losses.len(), found.predictions.len()), (300, 0));
    let first = metrics::mean_squared_error(&predicted[..2], &targets[..2]);
    assert!(close(found.losses[0].into(), first));
    assert_eq!(found.metrics(), [("mse", found.loss), ("mae", mae)]);
    assert!(found.accuracy.is_nan() && found.top5_accuracy.is_nan());
}

#[test]
fn a_run_learns_stops_resumes_and_reports() {
    let (train, valid) = (waves(200, 0.1, 1), waves(100, 0.1, 2));
    let dir = scratch("regression", "run");
    let run = |dir: &Path, steps| {
        trainer()
            .checkpoints(Checkpoints::open(dir).unwrap())
            .resume(Resume::Auto)
            .max_steps(steps)
            .callback(JsonLines::new(dir.join(JsonLines::FILE_NAME)))
            .callback(HtmlReport::new(dir.join("report.html")))
            .fit(&train, &valid)
            .unwrap()
    };
    let whole = run(&dir.join("whole"), None);
    let best = whole.best.unwrap();
    // Noise of 0.1 has a mean square of 0.01.
    assert!(best.value < 0.05, "{best:?}");
    assert!(whole.stop.to_string().contains("has not improved"), "{}", whole.stop);
    assert_eq!(evaluate(&whole.model, &whole.params, &valid).loss, best.value);
    for steps in [Some(1), Some(40), None] {
        let resumed = run(&dir.join("pieces"), steps);
        assert_eq!(resumed.digest == whole.digest, steps.is_none());
    }
    let log = std::fs::read_to_string(dir.join("whole").join(JsonLines::FILE_NAME)).unwrap();
    assert_eq!(log.lines().count(), whole.history.len());
    assert!(log.lines().all(|line| line.contains("\"mae\"") && !line.contains("accuracy")));
    let page = std::fs::read_to_string(dir.join("whole/report.html")).unwrap();
    assert!(page.contains("Its mean absolute error") && !page.contains("<h2>Mistakes"), "{page}");
    assert!(!page.contains("NaN"), "{page}");
}

#[test]
fn data_and_model_must_fit() {
    let data = || ArrayDataset::unlabelled("four", &[1], vec![0.0; 4]).unwrap();
    for (targets, message) in [
        (vec![], "0 targets for 4 examples"),
        (vec![0.0; 6], "6 targets for 4 examples"),
        (vec![0.0, 1.0, f32::NAN, 3.0], "target NaN of example 2 is not finite"),
    ] {
        let error = data().with_targets(targets).err().unwrap().to_string();
        assert!(error.contains(message), "{error}");
    }
    let three = data().with_targets(vec![0.0; 12]).unwrap();
    let other = data().with_targets(vec![1.0; 12]).unwrap();
    assert_ne!(three.fingerprint(), other.fingerprint());
    let error = trainer().fit(&three, &three).err().unwrap().to_string();
    assert!(error.contains("but four has 3 values to predict: expected [1, 3]"), "{error}");
}
