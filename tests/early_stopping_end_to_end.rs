//! Early stopping on a network that really overfits: the best weights are better on data that
//! nobody looked at, and what `compare` predicts for a rule is what training with that rule does.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use ferrotape::Params;
use ferrotape::checkpoint::{CheckpointFile, Checkpoints};
use ferrotape::data::{Split, Subset, load_idx_dir};
use ferrotape::monitor::{EarlyStopping, compare};
use ferrotape::nn::{Layer, Sequential};
use ferrotape::optim::Sgd;
use ferrotape::trainer::{Outcome, Stop, Trainer, evaluate};

const EPOCHS: u64 = 30;

const RULES: [&str; 14] = [
    "patience(1)",
    "patience(3)",
    "patience(5)",
    "patience(5), min_delta=auto",
    "patience(3), smoothing=mean(3)",
    "patience(2), monitor=accuracy, mode=max",
    "gl(3)",
    "gl(10)",
    "pq(0.5,k=5)",
    "up(2,k=3)",
    "correlation(-0.5,k=5)",
    "paired(4,z=1.645)",
    "all(patience(3),gl(2))",
    "target(0.6)",
];

static DATA: LazyLock<Split> = LazyLock::new(|| load_idx_dir("data/mnist", 10, 0).unwrap());

/// 150 digits to learn, which a network soon knows by heart.
fn few() -> Subset {
    DATA.train.hold_out(150, 1).unwrap().1
}

fn trainer(spec: EarlyStopping) -> Trainer<Sequential> {
    let mut params = Params::new(3);
    let layers = [Layer::Flatten, Layer::linear(784, 64), Layer::Relu, Layer::linear(64, 10)];
    let model = Sequential::new(&mut params, layers);
    Trainer::new(model, params, Sgd::new(0.05).momentum(0.9))
        .batch_size(16)
        .epochs(EPOCHS)
        .monitor(spec)
}

fn fit(trainer: Trainer<Sequential>) -> Outcome<Sequential> {
    trainer.fit(&few(), &DATA.valid.hold_out(300, 1).unwrap().1).unwrap()
}

fn spec(rule: &str) -> EarlyStopping {
    rule.parse().unwrap()
}

/// Never stops, but keeps the losses of single examples, which one of the rules wants to see.
fn never() -> EarlyStopping {
    spec("paired(1000,z=1.645)")
}

#[test]
fn the_best_weights_are_better_than_the_last_on_unseen_data() {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("early-stopping-end-to-end");
    let _ = fs::remove_dir_all(&dir);
    let outcome = fit(trainer(never()).checkpoints(Checkpoints::open(&dir).unwrap()));
    assert_eq!(outcome.stop, Stop::Epochs(EPOCHS));
    let (best, end) = (outcome.best.unwrap(), EPOCHS as usize - 1);
    let losses: Vec<f64> = outcome.history.iter().map(|o| o.valid_loss).collect();
    let learnt: Vec<f64> = outcome.history.iter().map(|o| o.train_loss.unwrap()).collect();
    assert!(best.epoch < EPOCHS && losses[end] > 1.03 * best.value, "overfits: {losses:?}");
    assert!(learnt[end] < 0.1 * learnt[0], "still learns: {learnt:?}");

    // Restored are the weights of that evaluation, to the bit.
    let valid = DATA.valid.hold_out(300, 1).unwrap().1;
    assert_eq!(evaluate(&outcome.model, &outcome.params, &valid).loss, best.value);
    let mut last = outcome.params.clone();
    let file = CheckpointFile::open(outcome.last_checkpoint.as_ref().unwrap()).unwrap();
    file.read_state().unwrap().load_into(&mut last).unwrap();
    assert_eq!(evaluate(&outcome.model, &last, &valid).loss, losses[end]);
    let [restored, overfitted] =
        [&outcome.params, &last].map(|params| evaluate(&outcome.model, params, &DATA.test).loss);
    assert!(restored < overfitted, "test loss: best {restored}, last {overfitted}");
}

#[test]
fn every_prediction_of_compare_comes_true() {
    let full = fit(trainer(never())).history;
    let specs = RULES.map(spec);
    let predicted = compare(&specs, &full).unwrap();
    let stopping = predicted.iter().filter(|p| p.stop_epoch.is_some()).count();
    assert!(stopping > RULES.len() / 2, "most rules have something to say: {predicted:?}");
    for (spec, predicted) in specs.into_iter().zip(predicted) {
        let actual = fit(trainer(spec));
        let rule = &predicted.rule;
        let seen = predicted.stop_epoch.unwrap_or(EPOCHS);
        assert_eq!(actual.history.len() as u64, seen, "{rule}");
        assert_eq!(actual.best.map(|best| best.epoch), predicted.best_epoch, "{rule}");
        assert_eq!(actual.best.map(|best| best.value), predicted.best_value, "{rule}");
        match (actual.stop, predicted.reason) {
            (Stop::Early(actual), Some(predicted)) => assert_eq!(actual, predicted, "{rule}"),
            (Stop::Epochs(EPOCHS), None) => {}
            (actual, predicted) => panic!("{rule}: {actual:?}, not {predicted:?}"),
        }
        for (actual, full) in actual.history.iter().zip(&full) {
            assert_eq!(actual.valid_loss, full.valid_loss, "{rule}: the same run until then");
        }
    }
}
