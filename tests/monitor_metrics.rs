//! A metric that a run does not measure is found before the first step, wherever it is asked for.

use ferrotape::data::ArrayDataset;
use ferrotape::monitor::{EarlyStopping, Mode};
use ferrotape::nn::{Layer, Sequential};
use ferrotape::optim::{LinearWarmUp, LrSchedule, PerStep, ReduceOnPlateau, Sgd};
use ferrotape::trainer::{CLASS_METRICS, Callback, StepInfo, Trainer, VALUE_METRICS};
use ferrotape::{Error, Params, Result};

/// Fails the test at the first step.
struct NoStep;

impl Callback for NoStep {
    fn on_step(&mut self, _info: &StepInfo) -> Result<()> {
        panic!("a step was taken");
    }
}

fn data() -> ArrayDataset {
    let inputs = vec![0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0];
    ArrayDataset::new("or", &[2], inputs, vec![0, 1, 1, 1], 2).unwrap()
}

/// The same with values to predict.
fn values() -> ArrayDataset {
    let inputs = vec![0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0];
    let targets = vec![0.0, 1.0, 1.0, 2.0, 1.0, 2.0, 2.0, 3.0];
    ArrayDataset::unlabelled("sums", &[2], inputs).unwrap().with_targets(targets).unwrap()
}

fn trainer() -> Trainer<Sequential> {
    let mut params = Params::new(0);
    let model = Sequential::new(&mut params, [Layer::linear(2, 2)]);
    Trainer::new(model, params, Sgd::new(0.1)).epochs(2)
}

/// What `fit` says instead of taking a step.
#[track_caller]
fn refusal(trainer: Trainer<Sequential>) -> String {
    match trainer.callback(NoStep).fit(&data(), &data()) {
        Err(error @ Error::Config { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_trainer_measures_what_it_says() {
    for (data, known) in [(data(), &CLASS_METRICS[..]), (values(), &VALUE_METRICS)] {
        let outcome = trainer().fit(&data, &data).unwrap();
        let mut measured = outcome.history[0].names();
        let mut known = known.to_vec();
        measured.sort_unstable();
        known.sort_unstable();
        assert_eq!(measured, known);
    }
}

#[test]
fn a_monitor_of_an_unknown_metric_takes_no_step() {
    for spec in [
        "patience(3), monitor=acuracy, mode=max",
        "on(acuracy,max,patience(3))",
        "any(patience(3),all(gl(5),on(acuracy,max,patience(3))))",
    ] {
        let said = refusal(trainer().monitor(spec.parse::<EarlyStopping>().unwrap()));
        assert!(said.contains("metric `acuracy`"), "{said}");
        assert!(said.contains("did you mean `accuracy`?"), "{said}");
        assert!(said.contains("valid_loss, train_loss, accuracy"), "{said}");
    }
    let said = refusal(trainer().monitor(EarlyStopping::patience(3).monitor("perplexity")));
    assert!(!said.contains("did you mean"), "{said}");
    assert!(said.contains("macro_f1"), "{said}");
}

#[test]
fn a_schedule_of_an_unknown_metric_takes_no_step() {
    let plateau = || ReduceOnPlateau::new(0.5, 1).monitor("acc", Mode::Max);
    let boxed: Box<dyn LrSchedule> = Box::new(plateau());
    for trainer in [
        trainer().schedule(plateau()),
        trainer().schedule(boxed),
        trainer().schedule(PerStep(plateau())),
        trainer().schedule(LinearWarmUp::new(2, plateau())),
    ] {
        let said = refusal(trainer);
        assert!(said.contains("metric `acc`") && said.contains("accuracy"), "{said}");
    }
}

#[test]
fn every_known_metric_is_accepted() {
    for (data, known) in [(data(), &CLASS_METRICS[..]), (values(), &VALUE_METRICS)] {
        for &metric in known {
            let spec = EarlyStopping::patience(1).monitor(metric).mode(Mode::Max);
            let schedule = ReduceOnPlateau::new(0.5, 1).monitor(metric, Mode::Max);
            trainer().monitor(spec).schedule(schedule).fit(&data, &data).unwrap();
        }
    }
    // What is measured depends on what there is to learn.
    let accuracy = EarlyStopping::patience(1).monitor("accuracy").mode(Mode::Max);
    let said = trainer().monitor(accuracy).fit(&values(), &values()).unwrap_err().to_string();
    assert!(said.contains("there are valid_loss, train_loss, mse, mae, train_mae"), "{said}");
}
