//! What the trainer does is what its documentation says, checked against loops written out by hand:
//! the plain loop, pieces of a batch, clipping, steps that are left out, going back; and whatever
//! ends a run, the best weights are restored.

use std::sync::{Arc, Mutex};

use common::simfs::SimFs;
use common::toy::{self, Toy, bits};
use ferrotape::checkpoint::Checkpoints;
use ferrotape::data::{Augment, Batches, RandomShift};
use ferrotape::monitor::{EarlyStopping, NanPolicy};
use ferrotape::nn::{Module, Sequential};
use ferrotape::optim::{LrSchedule, Progress, Sgd, StepLr, clip_grad_norm, grad_norm};
use ferrotape::rng::Stream;
use ferrotape::trainer::{Callback, NonFinite, Outcome, Resume, StepInfo, Stop, Trainer, evaluate};
use ferrotape::{Graph, Params, Result, Tape};

mod common;

/// Notes every step.
#[derive(Clone, Default)]
struct Steps(Arc<Mutex<Vec<StepInfo>>>);

impl Callback for Steps {
    fn on_step(&mut self, step: &StepInfo) -> Result<()> {
        self.0.lock().unwrap().push(*step);
        Ok(())
    }
}

impl Steps {
    fn get(&self) -> Vec<StepInfo> {
        self.0.lock().unwrap().clone()
    }
}

#[test]
fn the_plain_loop_and_the_trainer_compute_the_same_bits() {
    let (train, valid, augment) = (toy::train(), toy::valid(), RandomShift { max: 1 });
    let (epochs, seed) = (3, 7);

    let (model, mut params) = toy::cnn(seed);
    let mut sgd = Sgd::new(0.1).momentum(0.9).weight_decay(1e-3);
    let mut tape = Tape::new();
    let mut batches = Batches::new(&train, 16).shuffled(seed).augmented(&augment, seed);
    let (mut best, mut losses) = (params.clone(), Vec::new());
    for epoch in 0..epochs {
        sgd.lr = 0.1 * 0.5_f32.powi(epoch as i32);
        batches.seek(epoch, 0);
        while let Some(batch) = batches.next() {
            let mut g = Graph::new(&mut tape, &params);
            let x = g.input(&batch.inputs);
            let logits = model.forward(&mut g, x);
            let loss = g.cross_entropy(logits, &batch.labels);
            let gradients = g.backward(loss);
            sgd.step(&mut params, &gradients);
        }
        let loss = evaluate(&model, &params, &valid).loss;
        if losses.iter().all(|&earlier| loss < earlier) {
            best.clone_from(&params);
        }
        losses.push(loss);
    }

    let (model, params) = toy::cnn(seed);
    let sgd = Sgd::new(0.1).momentum(0.9).weight_decay(1e-3);
    let outcome = Trainer::new(model, params, sgd)
        .schedule(StepLr::new(1, 0.5))
        .batch_size(16)
        .augment(augment)
        .epochs(epochs)
        .monitor(EarlyStopping::patience(100))
        .fit(&train, &valid)
        .unwrap();
    assert_eq!(outcome.history.iter().map(|o| o.valid_loss).collect::<Vec<_>>(), losses);
    assert_eq!(bits(&outcome.params), bits(&best));
}

/// A step on all of a data set by hand: loss, norm of the gradient, weights.
fn step_by_hand(
    sgd: &mut Sgd,
    params: &mut Params,
    data: &Toy,
    max_norm: Option<f32>,
) -> (f32, f64) {
    let (model, _) = toy::mlp(3);
    let (images, labels) = data.batch();
    let mut tape = Tape::new();
    let mut g = Graph::new(&mut tape, params);
    let x = g.input(&images);
    let logits = model.forward(&mut g, x);
    let loss = g.cross_entropy(logits, &labels);
    let value = g.item(loss);
    let mut gradients = g.backward(loss);
    let norm = grad_norm(&gradients);
    if let Some(max_norm) = max_norm {
        clip_grad_norm(&mut gradients, max_norm);
    }
    sgd.step(params, &gradients);
    (value, norm)
}

fn assert_close(what: &str, seen: &[f32], expected: &[f32], tolerance: f32) {
    let scale = expected.iter().fold(0.0_f32, |scale, x| scale.max(x.abs()));
    for (seen, expected) in seen.iter().zip(expected) {
        assert!((seen - expected).abs() <= tolerance * scale, "{what}: {seen} {expected}");
    }
}

#[test]
fn a_batch_in_pieces_is_the_batch() {
    let train = toy::train();
    for max_norm in [None, Some(0.5)] {
        // One batch of 60; 15 of 4; 9 of 7, the last with 4; 2 of 59 and 1.
        for (size, pieces) in [(60, 1), (4, 15), (7, 9), (59, 2)] {
            let (_, mut expected) = toy::mlp(3);
            let mut sgd = Sgd::new(0.1).momentum(0.9);
            let by_hand: Vec<_> =
                (0..3).map(|_| step_by_hand(&mut sgd, &mut expected, &train, max_norm)).collect();

            let (model, params) = toy::mlp(3);
            let steps = Steps::default();
            let mut trainer = Trainer::new(model, params, Sgd::new(0.1).momentum(0.9))
                .batch_size(size)
                .accumulate(pieces)
                .epochs(3)
                .callback(steps.clone());
            if let Some(max_norm) = max_norm {
                trainer = trainer.clip_grad_norm(max_norm);
            }
            let outcome = trainer.fit(&train, &train).unwrap();
            assert_eq!(outcome.best.unwrap().epoch, 3, "it learns, so the last weights are best");
            let what = format!("{pieces} pieces of {size}, clipped to {max_norm:?}");
            assert_close(&what, outcome.params.flat(), expected.flat(), 1e-5);
            assert_eq!(steps.get().len(), 3);
            for (step, (loss, norm)) in steps.get().iter().zip(by_hand) {
                assert_close(&what, &[step.loss], &[loss], 1e-5);
                assert_close(&what, &[step.grad_norm as f32], &[norm as f32], 1e-5);
                let clipped = max_norm.is_some_and(|max_norm| step.grad_norm > f64::from(max_norm));
                assert_eq!(clipped, max_norm.is_some(), "{what}: norm {}", step.grad_norm);
            }
        }
    }
}

#[test]
fn clipping_by_value_limits_the_update() {
    let (model, params) = toy::mlp(3);
    let before = params.flat().to_vec();
    let trainer = Trainer::new(model, params, Sgd::new(1.0)).batch_size(60).clip_grad_value(1e-3);
    let after = trainer.epochs(1).fit(&toy::train(), &toy::train()).unwrap().params;
    let moved = after.flat().iter().zip(&before).map(|(after, before)| (after - before).abs());
    let largest = moved.fold(0.0_f32, f32::max);
    assert!((0.0009..0.0011).contains(&largest), "{largest}");
}

/// Makes one example in a hundred useless, another one each epoch: those that draw this number.
#[derive(Debug)]
struct Poison(usize);

impl Augment for Poison {
    fn apply(&self, x: &mut [f32], _shape: &[usize], rng: &mut Stream) {
        if rng.below(100) == self.0 {
            x.fill(f32::NAN);
        }
    }
}

/// A number that no example of the first epoch draws, and a few later do.
const LUCKY: usize = 74;

fn poisoned(fs: &SimFs, what: NonFinite) -> Trainer<Sequential> {
    let checkpoints = Checkpoints::open_in(Arc::new(fs.clone()), "run").unwrap();
    toy::trainer(checkpoints, false)
        .augment(Poison(LUCKY))
        .on_non_finite(what)
        .monitor(EarlyStopping::patience(3))
}

fn fit(trainer: Trainer<Sequential>) -> Outcome<Sequential> {
    trainer.fit(&toy::train(), &toy::valid()).unwrap()
}

#[test]
fn a_step_that_is_not_finite_is_left_out() {
    let steps = Steps::default();
    let outcome =
        fit(poisoned(&SimFs::default(), NonFinite::Skip).callback(steps.clone()).epochs(4));
    let skipped: Vec<u64> =
        steps.get().iter().filter(|step| !step.applied).map(|step| step.step - 1).collect();
    assert!(skipped.len() > 2 && skipped.len() < 12, "{skipped:?}");
    assert!(outcome.history.iter().all(|o| o.valid_loss.is_finite()));
    let poisoned = |step: &StepInfo| !step.loss.is_finite() || !step.grad_norm.is_finite();
    assert!(steps.get().iter().all(|step| poisoned(step) != step.applied));

    // By hand, without those steps: nothing of them is left, not in the running statistics either.
    let (model, mut params) = toy::cnn(7);
    let mut sgd = Sgd::new(0.1).momentum(0.9);
    let (train, valid, augment) = (toy::train(), toy::valid(), Poison(LUCKY));
    let mut tape = Tape::new();
    let mut batches = Batches::new(&train, 16).shuffled(7).augmented(&augment, 7);
    let mut step = 0;
    let mut left_out = Vec::new();
    let mut losses = Vec::new();
    for epoch in 0..4 {
        batches.seek(epoch, 0);
        while let Some(batch) = batches.next() {
            let buffers = params.flat_buffers().to_vec();
            let mut g = Graph::new(&mut tape, &params);
            let x = g.input(&batch.inputs);
            let logits = model.forward(&mut g, x);
            let loss = g.cross_entropy(logits, &batch.labels);
            let gradients = g.backward(loss);
            if batch.inputs.data().iter().any(|pixel| pixel.is_nan()) {
                left_out.push(step);
                assert_eq!(bits_of(params.flat_buffers()), bits_of(&buffers));
            } else {
                sgd.step(&mut params, &gradients);
            }
            step += 1;
        }
        losses.push(evaluate(&model, &params, &valid).loss);
    }
    let (model, params) = toy::cnn(7);
    let outcome = Trainer::new(model, params, Sgd::new(0.1).momentum(0.9))
        .batch_size(16)
        .augment(augment)
        .monitor(EarlyStopping::patience(100))
        .epochs(4)
        .fit(&train, &valid)
        .unwrap();
    assert_eq!(outcome.history.iter().map(|o| o.valid_loss).collect::<Vec<_>>(), losses);
    assert_eq!(left_out, skipped, "the same examples are poisoned");
}

fn bits_of(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn going_back_halves_the_rate_and_can_be_resumed() {
    let steps = Steps::default();
    // No roll-back before there is a best state: the first epoch is clean.
    let run = |fs: &SimFs| poisoned(fs, NonFinite::RollBack);
    let whole = fit(run(&SimFs::default()).callback(steps.clone()));
    let seen = steps.get();
    let backs = seen.iter().filter(|step| !step.applied).count();
    assert!(backs >= 2, "{backs} roll-backs");

    // Each one halves the rate that the schedule gives.
    let plain = Steps::default();
    let skipping = poisoned(&SimFs::default(), NonFinite::Skip);
    fit(skipping.callback(plain.clone()));
    let mut factor = 1.0;
    for (step, plain) in seen.iter().zip(plain.get()) {
        assert_eq!(step.lr, factor * plain.lr, "step {}", step.step);
        if !step.applied {
            factor *= 0.5;
        }
    }

    for stop in 1..whole.steps {
        let fs = SimFs::default();
        let part = fit(run(&fs).max_steps(Some(stop)));
        assert_eq!(part.stop, Stop::Interrupted(None));
        let rest = fit(run(&fs));
        assert_eq!(rest.digest, whole.digest, "interrupted after step {stop}");
        assert_eq!((rest.stop, rest.steps), (whole.stop.clone(), whole.steps));
        assert_eq!(bits(&rest.params), bits(&whole.params));
    }
}

#[test]
fn going_back_is_to_the_weights_of_the_best_evaluation_without_momentum() {
    // A rate that is absurd for one step of the second epoch, after which nothing is finite.
    let fs = SimFs::default();
    let checkpoints = Checkpoints::open_in(Arc::new(fs.clone()), "run").unwrap();
    let steps = Steps::default();
    let trainer = toy::trainer(checkpoints, false)
        .schedule(Explode { at: 5 })
        .on_non_finite(NonFinite::RollBack)
        .callback(steps.clone())
        .max_steps(Some(7));
    let outcome = fit(trainer);
    let applied: Vec<bool> = steps.get().iter().map(|step| step.applied).collect();
    assert_eq!(applied, [true, true, true, true, true, true, false]);
    let mut checkpoints = Checkpoints::open_in(Arc::new(fs), "run").unwrap();
    let best = checkpoints.load_best().unwrap().unwrap().state;
    let last = checkpoints.load_latest().unwrap().unwrap().state;
    assert_eq!((best.cursor.step, last.cursor.step), (4, 7));
    assert_eq!((&last.params, &last.buffers), (&best.params, &best.buffers));
    assert!(last.optimizer.slots.is_empty() && !best.optimizer.slots.is_empty());
    assert_eq!(outcome.best.unwrap().epoch, 1);
}

struct Explode {
    at: u64,
}

impl LrSchedule for Explode {
    fn lr(&self, base: f32, at: &Progress<'_>) -> f32 {
        if at.step == self.at { 1e38 } else { base }
    }

    fn describe(&self) -> String {
        format!("explode({})", self.at)
    }
}

/// Fails unless an outcome's weights are those of its best evaluation, and not simply the last.
#[track_caller]
fn assert_best_restored(outcome: &Outcome<Sequential>) {
    let best = outcome.best.expect("there was a finite evaluation");
    let stop = &outcome.stop;
    let last = outcome.history.last().unwrap();
    assert!(best.epoch < last.epoch || outcome.steps > last.step, "{stop}: the last is the best");
    let again = evaluate(&outcome.model, &outcome.params, &toy::valid());
    let seen = &outcome.history[best.index];
    assert_eq!(again.loss.to_bits(), best.value.to_bits(), "{stop}");
    assert_eq!(again.loss.to_bits(), seen.valid_loss.to_bits(), "{stop}");
    assert_eq!(Some(again.accuracy), seen.value("accuracy"), "{stop}");
    assert_eq!(Some(again.standard_error), seen.standard_error(), "{stop}");
}

#[test]
fn the_best_weights_are_restored_however_a_run_ends() {
    let run = |fs: &SimFs| {
        toy::trainer(Checkpoints::open_in(Arc::new(fs.clone()), "run").unwrap(), false)
    };
    let early = fit(run(&SimFs::default()));
    assert!(matches!(early.stop, Stop::Early(_)), "{}", early.stop);
    assert_best_restored(&early);
    let best = early.best.unwrap().epoch;

    let epochs = fit(run(&SimFs::default()).epochs(best + 1));
    assert_eq!(epochs.stop, Stop::Epochs(best + 1));
    assert_best_restored(&epochs);

    // Interrupted, also right after resuming, when the best weights come from a file.
    for stop in [best * toy::STEPS_PER_EPOCH + 1, best * toy::STEPS_PER_EPOCH + 3] {
        let fs = SimFs::default();
        for stop in [stop, stop + 1] {
            let interrupted = fit(run(&fs).max_steps(Some(stop)));
            assert_eq!(interrupted.stop, Stop::Interrupted(None));
            assert_best_restored(&interrupted);
            assert_eq!(bits(&interrupted.params), bits(&early.params));
        }
        let file = ferrotape::checkpoint::Checkpoints::open_in(Arc::new(fs), "run")
            .unwrap()
            .load_best()
            .unwrap()
            .unwrap();
        let mut params = toy::cnn(1).1;
        file.state.load_into(&mut params).unwrap();
        assert_eq!(bits(&params), bits(&early.params), "and they are in the best checkpoint");
    }

    // A loss that is not finite ends the run: seen by a step, or by an evaluation.
    let at = best * toy::STEPS_PER_EPOCH + 1;
    let exploding = |what| run(&SimFs::default()).schedule(Explode { at }).on_non_finite(what);
    let by_step = fit(exploding(NonFinite::Stop));
    assert!(matches!(by_step.stop, Stop::NonFinite { step, .. } if step == at + 2));
    let by_evaluation = fit(exploding(NonFinite::Skip));
    assert!(by_evaluation.stop.to_string().contains("NaN"), "{}", by_evaluation.stop);
    let by_patience = EarlyStopping::patience(2).nan_policy(NanPolicy::CountAsBad);
    let by_patience = fit(exploding(NonFinite::Skip).monitor(by_patience));
    assert!(matches!(by_patience.stop, Stop::Early(_)), "{}", by_patience.stop);
    for outcome in [by_step, by_evaluation, by_patience] {
        assert_best_restored(&outcome);
    }
}

#[test]
fn without_a_best_state_there_is_no_going_back() {
    let (model, params) = toy::cnn(7);
    let train = toy::train().spoil(0, f32::NAN).spoil(1, f32::INFINITY);
    for what in [NonFinite::RollBack, NonFinite::Stop] {
        let trainer = Trainer::new(model.clone(), params.clone(), Sgd::new(0.1))
            .batch_size(60)
            .on_non_finite(what);
        let outcome = trainer.fit(&train, &toy::valid()).unwrap();
        assert!(matches!(outcome.stop, Stop::NonFinite { step: 1, .. }), "{}", outcome.stop);
        assert_eq!((outcome.steps, outcome.best), (0, None));
        assert_eq!(bits(&outcome.params), bits(&params), "nothing was changed");
    }
}

#[test]
fn an_evaluation_may_send_the_run_back_too() {
    let fs = SimFs::default();
    let checkpoints = || Checkpoints::open_in(Arc::new(fs.clone()), "run").unwrap().keep_last(100);
    let monitor = EarlyStopping::patience(4).nan_policy(NanPolicy::RollBack);
    let steps = Steps::default();
    let outcome = fit(toy::trainer(checkpoints(), false)
        .monitor(monitor)
        // The last step of the second epoch: it is the evaluation that notices.
        .schedule(Explode { at: 7 })
        .resume(Resume::Never)
        .callback(steps.clone())
        .epochs(4));
    let steps = steps.get();
    assert!(steps.iter().all(|step| step.applied), "no step was left out");
    assert_eq!((steps[6].lr, steps[8].lr), (0.1, 0.05));
    assert!(outcome.history[1].valid_loss.is_nan() && outcome.history[2].valid_loss.is_finite());

    let mut checkpoints = checkpoints();
    let rolled_back = checkpoints.load(1).unwrap();
    assert_eq!(rolled_back.state.cursor.step, 8);
    assert_eq!(rolled_back.state.params, checkpoints.load(0).unwrap().state.params);
    assert_eq!(rolled_back.metric, None, "nothing was measured with these weights here");
}
