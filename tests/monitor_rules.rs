//! Every rule on numbers worked out by hand, and the cases that break well-known libraries.

use ferrotape::monitor::{
    EarlyStopping, MinDelta, Mode, Monitor, NanPolicy, Observation, StopReason, Verdict, compare,
    verdicts,
};

fn spec(text: &str) -> EarlyStopping {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn valid(losses: &[f64]) -> Vec<Observation> {
    (1..).zip(losses).map(|(epoch, &loss)| Observation::new(epoch, loss)).collect()
}

fn both(train: &[f64], losses: &[f64]) -> Vec<Observation> {
    let pairs = valid(losses).into_iter().zip(train);
    pairs.map(|(seen, &loss)| seen.with_train_loss(loss)).collect()
}

fn run(text: &str, history: &[Observation]) -> Vec<Verdict> {
    verdicts(&spec(text), history).unwrap()
}

/// The evaluations, from 1, at which the rule wants to stop.
fn stops(text: &str, history: &[Observation]) -> Vec<usize> {
    let all = run(text, history);
    (1..).zip(&all).filter(|(_, v)| v.should_stop()).map(|(n, _)| n).collect()
}

/// The first rule's readings.
fn readings(text: &str, history: &[Observation]) -> Vec<Option<f64>> {
    run(text, history).iter().map(|verdict| verdict.readings[0].value).collect()
}

fn close(found: Option<f64>, expected: f64) {
    let found = found.expect("a reading");
    assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{found} not {expected}");
}

#[test]
fn patience_stops_at_the_fifth_and_keeps_the_second() {
    let history = valid(&[1.0, 0.9, 0.95, 0.96, 0.97]);
    assert_eq!(stops("patience(3)", &history), [5]);
    let last = run("patience(3)", &history).pop().unwrap();
    assert_eq!(last.best.unwrap().epoch, 2);
    assert_eq!(last.patience_left, Some(0));
    match last.stop_reason().unwrap() {
        StopReason::Patience { bad: 3, patience: 3, anchor: Some(anchor), .. } => {
            assert_eq!((anchor.epoch, anchor.value), (2, 0.9));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn zero_patience_is_refused_with_help() {
    for error in [
        Monitor::new(EarlyStopping::patience(0)).unwrap_err(),
        "patience(0)".parse::<EarlyStopping>().unwrap_err(),
        "any(gl(5),paired(0))".parse::<EarlyStopping>().unwrap_err(),
    ] {
        assert!(error.to_string().contains("at least 1 evaluation"), "{error}");
    }
}

// Slow, steady improvement below min_delta: libraries that compare each value with the last one
// stop a run that improves every time; those that move "best" only beyond min_delta lose its
// weights.
#[test]
fn slow_improvement_neither_stops_the_run_nor_loses_the_best() {
    let losses: Vec<f64> = (0..40).map(|t| 2.0 - 0.25 * f64::from(t)).collect();
    let history = valid(&losses);
    // Every third value is more than 0.5 below the anchor, so patience 3 is never used up.
    assert_eq!(stops("patience(3,min_delta=0.5)", &history), [0; 0]);
    assert!(run("patience(3,min_delta=0.5)", &history).iter().all(|verdict| verdict.new_best));
    // Two evaluations are not enough for it.
    assert_eq!(stops("patience(2,min_delta=0.5)", &history)[0], 3);
    let first = &run("patience(2,min_delta=0.5)", &history)[2];
    assert_eq!((first.best.unwrap().index, first.anchor.unwrap().index), (2, 0));
}

// With `value < anchor * (1 - delta)` a score of -2.1 would not improve on -2, and -1.99 would.
#[test]
fn relative_min_delta_on_negative_scores() {
    let text = "patience(1,min_delta=relative(0.125))";
    let anchors = |losses: &[f64]| -> Vec<usize> {
        run(text, &valid(losses)).iter().map(|v| v.anchor.unwrap().index).collect()
    };
    assert_eq!(anchors(&[-2.0, -2.25, -2.5, -2.75]), [0, 0, 2, 2]);
    assert_eq!(anchors(&[-2.0, -1.75, -1.0]), [0, 0, 0]);
    assert_eq!(anchors(&[2.0, 1.75, 1.5]), [0, 0, 2]);
    assert_eq!(anchors(&[0.0, -0.001]), [0, 1]);
    assert_eq!(anchors(&[0.5, -0.5, -0.5625, -0.625]), [0, 1, 1, 3]);
}

#[test]
fn automatic_min_delta_is_the_standard_error_at_the_anchor() {
    let mut history = valid(&[1.0, 0.96, 0.94, 0.93, 0.8]);
    for (seen, se) in history.iter_mut().zip([0.05, 0.5, 0.01, 0.0, 9.0]) {
        seen.valid_loss_se = Some(se);
    }
    let anchors: Vec<usize> = run("patience(9,min_delta=auto)", &history)
        .iter()
        .map(|v| v.anchor.unwrap().index)
        .collect();
    // 0.96 is above 1 - 0.05; 0.94 is below; 0.93 is not below 0.94 - 0.01; 0.8 is.
    assert_eq!(anchors, [0, 0, 2, 2, 4]);
    let missing = &run("patience(9,min_delta=auto)", &valid(&[1.0]))[0];
    assert!(missing.stop_reason().unwrap().to_string().contains("needs `valid_loss_se`"));
}

#[test]
fn generalisation_loss_by_hand() {
    // E_opt: 2, 1, 1, 1, 0.5.
    let history = valid(&[2.0, 1.0, 1.25, 1.0625, 0.5]);
    let expected = [0.0, 0.0, 25.0, 6.25, 0.0];
    for (found, expected) in readings("gl(10)", &history).into_iter().zip(expected) {
        close(found, expected);
    }
    assert_eq!(stops("gl(10)", &history), [3]);
    assert_eq!(stops("gl(6)", &history), [3, 4]);
    assert_eq!(stops("gl(6.25)", &history), [3], "alpha has to be exceeded");
    // Below zero, "worse" is nearer to zero: -0.75 lies 25% of 1 above -1.
    close(readings("gl(10)", &valid(&[-1.0, -0.75]))[1], 25.0);
    // An accuracy of 0.75 after 1 is worse by 25%.
    let accuracy = [1.0, 0.75].map(|a| Observation::new(1, 1.0).with_metric("accuracy", a));
    close(readings("gl(10), monitor=accuracy, mode=max", &accuracy)[1], 25.0);
}

#[test]
fn generalisation_loss_at_a_perfect_model() {
    // 0 / 0 is no loss, anything above a perfect 0 is an enormous one, and all stay finite.
    let found = readings("gl(5)", &valid(&[0.0, 0.0, 1e-3, 0.0]));
    assert_eq!(found, [Some(0.0), Some(0.0), Some(1e11), Some(0.0)]);
}

#[test]
fn progress_quotient_by_hand() {
    // Strip 1: training 4 2 3 3, sum 12, min 2: P = 1000 (12 / 8 - 1) = 500; GL = 0.
    // Strip 2: training 2 1 1 1, sum 5, min 1: P = 1000 (5 / 4 - 1) = 250; E_opt 1, GL = 50.
    // Strip 3: training 1 1 1 1: P = 0, guarded; GL = 100, the quotient is enormous.
    let train = [4.0, 2.0, 3.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
    let losses = [4.0, 3.0, 2.0, 1.0, 9.0, 9.0, 9.0, 1.5, 9.0, 9.0, 9.0, 2.0];
    let history = both(&train, &losses);
    let found = readings("pq(0.1,k=4)", &history);
    for (n, reading) in (1..).zip(&found) {
        assert_eq!(reading.is_some(), n % 4 == 0, "reads at strip ends only");
    }
    close(found[3], 0.0);
    close(found[7], 0.2);
    assert!(found[11].unwrap() > 1e12 && found[11].unwrap().is_finite());
    assert_eq!(stops("pq(0.1,k=4)", &history), [8, 12]);
    assert_eq!(stops("pq(0.3,k=4)", &history), [12]);
    match run("pq(0.1,k=4)", &history)[7].stop_reason().unwrap() {
        StopReason::ProgressQuotient { percent, progress, .. } => {
            close(Some(*percent), 50.0);
            close(Some(*progress), 250.0);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn progress_quotient_zero_guards() {
    // Training stands still and validation is at its best: 0 / 0 is no reason to stop.
    let history = both(&[1.0; 4], &[4.0, 3.0, 2.0, 1.0]);
    assert_eq!(readings("pq(0.5,k=2)", &history), [None, Some(0.0), None, Some(0.0)]);
    // A training loss that reached 0, with progress before: P is enormous, the quotient small.
    let history = both(&[1.0, 0.0], &[1.0, 1.5]);
    assert!(readings("pq(0.5,k=2)", &history)[1].unwrap() < 1e-9);
    // A strip with a training loss that is not finite says nothing.
    let history = both(&[1.0, f64::NAN, 1.0, 1.0], &[1.0, 2.0, 1.0, 2.0]);
    let found = readings("pq(0.5,k=2)", &history);
    assert_eq!((found[1], found[3].is_some()), (None, true));
    // Without training losses the rule cannot work, and says so at once.
    let verdict = &run("pq(0.5,k=2)", &valid(&[1.0]))[0];
    let reason = verdict.stop_reason().unwrap().to_string();
    assert!(
        reason.contains("needs `train_loss`") && reason.contains("only valid_loss"),
        "{reason}"
    );
}

#[test]
fn rising_strips_by_hand() {
    // Strip ends (k = 2): 5, 6, 7, 6.5, 7, 8, 9.
    let losses = [9.0, 5.0, 1.0, 6.0, 9.0, 7.0, 9.0, 6.5, 1.0, 7.0, 1.0, 8.0, 1.0, 9.0];
    let history = valid(&losses);
    let ends: Vec<_> = readings("up(2,k=2)", &history).into_iter().skip(1).step_by(2).collect();
    assert_eq!(ends, [0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 3.0].map(Some));
    assert_eq!(stops("up(2,k=2)", &history), [6, 12, 14]);
    assert_eq!(stops("up(3,k=2)", &history), [14]);
    assert_eq!(stops("up(1,k=7)", &valid(&[1.0; 14])), [0; 0], "standing still is no rise");
    // By any amount, unlike GL.
    assert_eq!(stops("up(1,k=1)", &valid(&[1.0, 1.0 + f64::EPSILON])), [2]);
}

#[test]
fn a_broken_value_at_a_strips_end_is_a_rise_and_no_reset() {
    let policy = "nan_policy=count_as_bad";
    let history = valid(&[1.0, f64::NAN, 1.1, 0.9]);
    let text = format!("up(2,k=1), {policy}");
    let found = readings(&text, &history);
    assert_eq!(found, [Some(0.0), Some(1.0), Some(2.0), Some(0.0)]);
}

#[test]
fn correlation_needs_a_falling_training_loss() {
    let falling = [5.0, 4.0, 3.0, 2.0, 1.0];
    let rising = [1.0, 2.0, 3.0, 4.0, 5.0];
    assert_eq!(stops("correlation(-0.5,k=5)", &both(&falling, &rising)), [5]);
    assert_eq!(stops("correlation(-0.5,k=5)", &both(&rising, &falling)), [0; 0]);
    assert_eq!(stops("correlation(-0.5,k=5)", &both(&falling, &falling)), [0; 0]);
    assert_eq!(readings("correlation(0,k=5)", &both(&falling, &[1.0; 5]))[4], None);
    // x = -2 .. 2 against y - mean = 0 0 1 0 -1: sum of products -2, of squares 10 and 2.
    let found = readings("correlation(-0.9,k=5)", &both(&rising, &[2.0, 2.0, 3.0, 2.0, 1.0]));
    close(found[4], -2.0 / 20f64.sqrt());
}

#[test]
fn paired_test_sees_what_the_standard_error_hides() {
    // Hard and easy examples differ by 2; every one of them improves by about 0.01.
    let losses = |shift: f32| -> Vec<f32> {
        (0..100).map(|i| (i % 2) as f32 * 2.0 - shift * (1.0 + 0.5 * (i % 3) as f32)).collect()
    };
    let at = |epoch, shift: f32| {
        let losses = losses(shift);
        let mean = losses.iter().map(|&x| f64::from(x)).sum::<f64>() / 100.0;
        Observation { example_losses: losses, ..Observation::new(epoch, mean) }
    };
    let history = [at(1, 0.0), at(2, 0.01), at(3, 0.02), at(4, 0.02), at(5, 0.015)];
    let bad: Vec<_> = run("paired(2,z=1.645)", &history).iter().map(|v| v.patience_left).collect();
    assert_eq!(bad, [2, 2, 2, 1, 0].map(Some));
    assert_eq!(stops("paired(2,z=1.645)", &history), [5]);
    assert_eq!(stops("patience(2,min_delta=auto)", &history), [3, 4, 5]);
    match run("paired(2,z=1.645)", &history)[4].stop_reason().unwrap() {
        StopReason::NotSignificant { t: Some(t), anchor, .. } => {
            assert!(*t < 0.0 && anchor.unwrap().epoch == 3);
        }
        other => panic!("{other:?}"),
    }
    // Differences 0 and 2: mean 1, standard error 1. A t of exactly z is not beyond chance.
    let edge = [[2.0, 4.0], [2.0, 2.0]].map(|losses| Observation {
        example_losses: losses.to_vec(),
        ..Observation::new(1, f64::from(losses[0] + losses[1]) / 2.0)
    });
    assert_eq!(run("paired(2,z=1)", &edge)[1].patience_left, Some(1));
    assert_eq!(run("paired(2,z=0.999)", &edge)[1].patience_left, Some(2));

    let mut shorter = history.to_vec();
    shorter[1].example_losses.pop();
    let reason = run("paired(2)", &shorter)[1].stop_reason().unwrap().to_string();
    assert!(reason.contains("of the same examples"), "{reason}");
}

#[test]
fn target_divergence_and_budget() {
    let history = valid(&[1.0, 0.5, 0.25, 2.5]);
    assert_eq!(stops("target(0.25)", &history), [3]);
    assert_eq!(stops("divergence(2.5)", &history), [0; 0]);
    assert_eq!(stops("divergence(2)", &history), [4]);
    assert_eq!(stops("divergence(2)", &valid(&[-1.0, -0.5, 0.0, 0.5])), [4]);
    assert_eq!(stops("budget(epochs=3)", &history), [3, 4]);

    let timed: Vec<_> = (1..=4)
        .map(|n| Observation { step: 10 * n, elapsed: Some(n as f64), ..Observation::new(n, 1.0) })
        .collect();
    assert_eq!(stops("budget(steps=25)", &timed), [3, 4]);
    assert_eq!(stops("budget(epochs=9,steps=90,seconds=1.5)", &timed), [2, 3, 4]);
    match run("budget(epochs=9,seconds=1.5)", &timed)[1].stop_reason().unwrap() {
        StopReason::Budget { unit: "seconds", used, limit } => {
            assert_eq!((*used, *limit), (2.0, 1.5))
        }
        other => panic!("{other:?}"),
    }
    let reason = run("budget(seconds=9)", &valid(&[1.0]))[0].stop_reason().unwrap().to_string();
    assert!(reason.contains("needs `elapsed`"), "{reason}");
}

#[test]
fn compositions_count_what_holds_at_the_same_evaluation() {
    let history = valid(&[1.0, 1.05, 1.2, 0.99999, 1.3, 1.4]);
    assert_eq!(stops("gl(10)", &history), [3, 5, 6]);
    assert_eq!(stops("up(1,k=2)", &history), [6]);
    assert_eq!(stops("patience(2)", &history), [3, 6]);
    assert_eq!(stops("any(patience(2),gl(10))", &history), [3, 5, 6]);
    assert_eq!(stops("all(patience(2),gl(10))", &history), [3, 6]);
    assert_eq!(stops("all(patience(2),gl(10),up(1,k=2))", &history), [6]);
    assert_eq!(stops("at_least(2,patience(2),gl(10),up(1,k=2))", &history), [3, 6]);
    assert_eq!(stops("at_least(2,any(up(1,k=2),gl(10)),patience(2))", &history), [3, 6]);

    let verdict = &run("at_least(2,up(1,k=2),gl(10),patience(2))", &history)[2];
    let fires: Vec<bool> = verdict.readings.iter().map(|reading| reading.fires).collect();
    assert_eq!(fires, [false, true, true]);
    let StopReason::Several(reasons) = verdict.stop_reason().unwrap() else { panic!() };
    assert_eq!(reasons.len(), 2);
    // The reasons of a branch that does not hold are no evidence.
    let verdict = &run("any(all(gl(10),up(1,k=2)),patience(2))", &history)[2];
    assert!(matches!(verdict.stop_reason(), Some(StopReason::Patience { .. })));
}

#[test]
fn rules_on_other_metrics_leave_best_to_the_monitored_one() {
    let losses = [1.0, 0.9, 0.8, 0.7];
    let accuracies = [0.5, 0.6, 0.55, 0.5];
    let history: Vec<_> = valid(&losses)
        .into_iter()
        .zip(accuracies)
        .map(|(seen, accuracy)| seen.with_metric("accuracy", accuracy))
        .collect();
    let text = "any(patience(9),on(accuracy,max,patience(2)))";
    assert_eq!(stops(text, &history), [4]);
    let last = &run(text, &history)[3];
    assert_eq!(last.best.unwrap().index, 3);
    assert_eq!(last.anchor.unwrap().value, 0.6, "of the most impatient rule, in its own unit");
    let reason = run("on(f1,max,gl(5))", &history)[0].stop_reason().unwrap().to_string();
    assert!(reason.contains("`f1`") && reason.contains("valid_loss, accuracy"), "{reason}");
}

#[test]
fn nan_under_each_policy() {
    let nan = f64::NAN;
    let history = valid(&[nan, 1.0, nan, f64::INFINITY, f64::NEG_INFINITY, 0.5]);
    assert_eq!(stops("patience(3)", &history), [1, 3, 4, 5]);
    assert_eq!(stops("patience(3), nan_policy=count_as_bad", &history), [5]);
    // Also in warm-up and before min_epochs, where a broken run does not get any better.
    assert_eq!(stops("patience(3), warm_up=4, min_epochs=5", &history), [1, 3, 4, 5]);
    let rolled: Vec<bool> =
        run("patience(3), nan_policy=roll_back", &history).iter().map(|v| v.roll_back).collect();
    assert_eq!(rolled, [true, false, true, true, true, false]);
    let bests: Vec<_> = run("patience(9), nan_policy=count_as_bad", &history)
        .iter()
        .map(|verdict| verdict.best.map(|best| best.index))
        .collect();
    assert_eq!(bests, [None, Some(1), Some(1), Some(1), Some(1), Some(5)]);
}

// The arg-max of NaN outputs is a class like any other: its accuracy is finite and meaningless.
#[test]
fn a_finite_accuracy_from_a_nan_loss_is_never_best() {
    let history = [(f64::NAN, 0.9), (1.0, 0.1), (f64::NAN, 0.99)]
        .map(|(loss, accuracy)| Observation::new(1, loss).with_metric("accuracy", accuracy));
    let text = "patience(3), monitor=accuracy, mode=max, nan_policy=count_as_bad";
    let best: Vec<_> = run(text, &history).iter().map(|v| v.best.map(|b| b.index)).collect();
    assert_eq!(best, [None, Some(1), Some(1)]);
    let stop = run("patience(3), monitor=accuracy, mode=max", &history)[0].clone();
    assert!(stop.stop_reason().unwrap().to_string().starts_with("valid_loss is NaN"));
}

#[test]
fn min_epochs_suppresses_a_verdict_and_never_stores_it() {
    // Patience 2 is used up at evaluation 3, but the value recovers before epoch 5.
    let history = valid(&[1.0, 2.0, 2.0, 0.5, 0.6, 0.7]);
    assert_eq!(stops("patience(2)", &history), [3, 6]);
    assert_eq!(stops("patience(2), min_epochs=5", &history), [6]);
    assert_eq!(stops("patience(2), min_epochs=4", &valid(&[1.0, 2.0, 2.0, 2.0])), [4]);
    assert_eq!(stops("target(1), min_epochs=5", &history), [5, 6]);
    assert_eq!(stops("budget(epochs=5), min_epochs=5", &history), [5, 6]);
}

#[test]
fn min_epochs_never_suppresses_a_budget() {
    let spend =
        |n| Observation { step: n, elapsed: Some(n as f64), ..Observation::new(n, n as f64) };
    let history: Vec<_> = (1..=5).map(spend).collect();
    assert_eq!(stops("gl(9), min_epochs=9", &history), [0; 0]);
    assert_eq!(stops("budget(steps=3), min_epochs=9", &history), [3, 4, 5]);
    assert_eq!(stops("any(gl(9),budget(seconds=3)), min_epochs=9", &history), [3, 4, 5]);
    // Nor does warm-up.
    assert_eq!(stops("any(gl(9),budget(steps=3)), warm_up=9", &history), [3, 4, 5]);
}

#[test]
fn warm_up_may_find_the_best_but_counts_nothing() {
    let history = valid(&[1.0, 3.0, 3.0, 2.0, 2.0]);
    assert_eq!(stops("patience(2)", &history), [3, 4, 5]);
    assert_eq!(stops("patience(2), warm_up=3", &history), [5]);
    assert_eq!(stops("gl(50), warm_up=3", &history), [4, 5]);
    assert_eq!(run("patience(2), warm_up=3", &history)[4].best.unwrap().index, 0);
    assert_eq!(stops("target(1), warm_up=3", &history), [1]);
}

#[test]
fn a_jump_of_the_learning_rate_opens_a_grace_period() {
    let rates = [0.1, 0.1, 0.01, 0.01, 0.01, 0.009, 0.008];
    let mut history = valid(&[1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]);
    for (seen, lr) in history.iter_mut().zip(rates) {
        seen.lr = Some(lr);
    }
    assert_eq!(stops("patience(2)", &history)[0], 3);
    // Counted are evaluations 2 and 5; the small steps at 6 and 7 open no further period.
    assert_eq!(stops("patience(2), grace_after_lr_change=2", &history), [5, 6, 7]);
    let left: Vec<_> = run("patience(4), grace_after_lr_change=2", &history)
        .iter()
        .map(|verdict| verdict.patience_left.unwrap())
        .collect();
    assert_eq!(left, [4, 3, 3, 3, 2, 1, 0]);

    // A quarter up or a fifth down is the smallest jump.
    for (before, after, opens) in
        [(4.0, 5.0, true), (4.0, 4.99, false), (5.0, 4.0, true), (4.99, 4.0, false)]
    {
        let rates = [before, after].map(Some);
        let seen = |lr| Observation { lr, ..Observation::new(1, 1.0) };
        let left = run("patience(2), grace_after_lr_change=1", &rates.map(seen))[1].patience_left;
        assert_eq!(left, Some(if opens { 2 } else { 1 }), "from {before} to {after}");
    }
}

#[test]
fn smoothing_decides_but_raw_values_are_kept() {
    // One lucky outlier: as raw value it is best, but it does not reset patience.
    let history = valid(&[1.0, 1.0, 1.0, 0.1, 1.0, 1.0]);
    let last = run("patience(5), smoothing=median(3)", &history).pop().unwrap();
    assert_eq!(last.best.unwrap().index, 3);
    assert_eq!(last.anchor.unwrap().index, 0);
    assert!(last.should_stop());
    assert!(!run("patience(5)", &history).pop().unwrap().should_stop());
}

#[test]
fn comparison_by_hand() {
    let history = valid(&[1.0, 0.8, 0.9, 1.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]);
    let specs = ["patience(2)", "patience(3)", "patience(6)", "pq(1,k=2)"].map(spec);
    let found = compare(&specs, &history).unwrap();
    let summary: Vec<_> =
        found.iter().map(|c| (c.stop_epoch, c.best_epoch, c.best_value)).collect();
    assert_eq!(summary[0], (Some(4), Some(2), Some(0.8)));
    assert_eq!(summary[1], (Some(8), Some(5), Some(0.5)));
    assert_eq!(summary[2], (None, Some(5), Some(0.5)));
    close(found[0].regret, 0.3);
    assert_eq!((found[1].regret, found[2].regret), (Some(0.0), Some(0.0)));
    assert_eq!((found[0].saved, found[1].saved, found[2].saved), (0.6, 0.2, 0.0));
    assert!(matches!(found[3].reason, Some(StopReason::Missing { .. })));
    assert_eq!(found[3].stop_epoch, None);

    let json = serde_json::to_value(&found[2]).unwrap();
    assert_eq!(json["rule"], "patience(6)");
    assert_eq!(json["stop_epoch"], serde_json::Value::Null);
    assert_eq!((json["best_epoch"].as_u64(), json["regret"].as_f64()), (Some(5), Some(0.0)));

    // What is saved is training, not evaluations: by the steps if they are known, else by the
    // epochs.
    let at = |place: fn(u64) -> Observation| {
        let history: Vec<_> = [1, 2, 3, 100, 1000].map(place).into();
        compare(&[spec("patience(2)"), spec("patience(9)")], &history).unwrap()
    };
    let by_epoch = at(|n| Observation::new(n, 1.0));
    assert_eq!((by_epoch[0].stop_epoch, by_epoch[1].stop_epoch), (Some(3), None));
    assert_eq!((by_epoch[0].saved, by_epoch[1].saved), (0.997, 0.0));
    let by_step = at(|n| Observation { step: n, ..Observation::new(1, 1.0) });
    assert_eq!((by_step[0].saved, by_step[1].saved), (0.997, 0.0));

    let empty = &compare(&specs, &[]).unwrap()[0];
    assert_eq!(
        (empty.stop_epoch, empty.best_epoch, empty.regret, empty.saved),
        (None, None, None, 0.0)
    );
    let broken = &compare(&specs, &valid(&[f64::NAN, 1.0])).unwrap()[0];
    assert_eq!((broken.stop_epoch, broken.best_value, broken.regret), (Some(1), None, None));
}

#[test]
fn the_builder_and_the_text_say_the_same() {
    let built = EarlyStopping::patience(4)
        .min_delta(MinDelta::Relative(0.01))
        .mode(Mode::Max)
        .monitor("accuracy")
        .nan_policy(NanPolicy::RollBack)
        .grace_after_lr_change(2);
    let text = "patience(4), min_delta=relative(0.01), monitor=accuracy, mode=max, \
                nan_policy=roll_back, grace_after_lr_change=2";
    assert_eq!(built, spec(text));
    assert_eq!(built.to_string(), text);
}
