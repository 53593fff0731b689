//! The monitor is a fold: its state is a function of specification and history, however the
//! history was fed to it, and `max` on a metric is `min` on its negative. Checked on random
//! histories full of ties, NaN, infinities and learning-rate jumps.

use ferrotape::monitor::{
    EarlyStopping, Mode, Monitor, Observation, Reading, Verdict, compare, verdicts,
};
use proptest::prelude::*;

/// Specifications that between them use every rule and every setting.
const SPECS: [&str; 8] = [
    "patience(2)",
    "patience(3,min_delta=0.25), warm_up=2, min_epochs=4, nan_policy=count_as_bad",
    "any(patience(3),gl(20),up(2,k=2)), smoothing=mean(3), nan_policy=roll_back",
    "all(patience(1,min_delta=relative(0.1)),at_least(1,gl(5),pq(0.5,k=3)))",
    "at_least(2,patience(2),correlation(0,k=3),on(accuracy,max,patience(2)),divergence(2))",
    "any(paired(2,z=1),budget(epochs=9,steps=60,seconds=50)), nan_policy=count_as_bad",
    "any(patience(2,min_delta=auto),target(0.1)), smoothing=ema(0.5), grace_after_lr_change=2",
    "patience(2), monitor=accuracy, mode=max, smoothing=median(3), nan_policy=count_as_bad",
];

/// A loss: mostly few different values, so that ties occur; now and then none at all.
fn loss() -> impl Strategy<Value = f64> {
    prop_oneof![
        12 => (1..12i32).prop_map(|n| f64::from(n) / 8.0),
        4 => 0.0..1.5f64,
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
    ]
}

fn history() -> impl Strategy<Value = Vec<Observation>> {
    let one = (loss(), loss(), 0.0..1.0f64, 0..3u8, prop::collection::vec(0.0..2f32, 4));
    prop::collection::vec(one, 0..14).prop_map(|rows| {
        let seen = |(epoch, (valid, train, accuracy, lr, example_losses))| Observation {
            step: 6 * epoch,
            lr: Some(0.1 * f64::from(lr)),
            elapsed: Some(5.0 * epoch as f64),
            example_losses,
            ..Observation::new(epoch, valid)
                .with_train_loss(train)
                .with_metric("accuracy", accuracy)
        };
        (1..).zip(rows).map(seen).collect()
    })
}

/// NaN is unequal to itself, but its text is the same.
fn text(thing: &impl std::fmt::Debug) -> String {
    format!("{thing:?}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn replay_is_incremental_at_every_split(history in history()) {
        for spec in SPECS.map(|s| s.parse::<EarlyStopping>().unwrap()) {
            let all = verdicts(&spec, &history).unwrap();
            for split in 0..=history.len() {
                let (before, after) = history.split_at(split);
                let mut resumed = Monitor::replay(spec.clone(), before.to_vec()).unwrap();
                prop_assert_eq!(text(&resumed.last()), text(&all[..split].last()));
                for (seen, expected) in after.iter().zip(&all[split..]) {
                    let verdict = resumed.observe(seen.clone());
                    prop_assert_eq!(text(&verdict), text(expected));
                }
                let whole = Monitor::replay(spec.clone(), history.clone()).unwrap();
                prop_assert_eq!(text(&resumed), text(&whole));
            }
        }
    }

    #[test]
    fn a_monitor_read_back_from_json_is_the_same(history in history()) {
        for spec in SPECS.map(|s| s.parse::<EarlyStopping>().unwrap()) {
            let monitor = Monitor::replay(spec, history.clone()).unwrap();
            let json = serde_json::to_string(&monitor).unwrap();
            let back: Monitor = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(text(&back), text(&monitor));
        }
    }

    #[test]
    fn max_is_min_of_the_negative(history in history(), which in 0..6usize) {
        let rule = [
            "patience(2,min_delta=0.1)",
            "patience(3,min_delta=relative(0.05))",
            "any(gl(7),divergence(1.5))",
            "pq(0.4,k=2)",
            "all(up(1,k=2),correlation(0.5,k=3))",
            "at_least(2,gl(3),patience(1),up(1,k=1))",
        ][which];
        let with = |mode: Mode, sign: f64| {
            let spec = rule.parse::<EarlyStopping>().unwrap().monitor("m").mode(mode);
            let spec = spec.nan_policy(ferrotape::monitor::NanPolicy::CountAsBad);
            let renamed = history.iter().map(|seen| Observation {
                valid_loss: 1.0,
                ..seen.clone().with_metric("m", sign * seen.valid_loss)
            });
            verdicts(&spec, &renamed.collect::<Vec<_>>()).unwrap()
        };
        // Divergence reports metric values, which change their sign; the rest does not.
        let sizes = |readings: &[Reading]| -> Vec<(bool, String)> {
            readings.iter().map(|r| (r.fires, text(&r.value.map(f64::abs)))).collect()
        };
        for (low, high) in with(Mode::Min, 1.0).iter().zip(&with(Mode::Max, -1.0)) {
            prop_assert_eq!(low.should_stop(), high.should_stop());
            prop_assert_eq!(low.new_best, high.new_best);
            prop_assert_eq!(low.patience_left, high.patience_left);
            prop_assert_eq!(sizes(&low.readings), sizes(&high.readings));
            prop_assert_eq!(low.best.map(|b| (b.index, -b.value)), high.best.map(|b| (b.index, b.value)));
            prop_assert_eq!(low.diagnosis.condition, high.diagnosis.condition);
        }
    }

    #[test]
    fn comparison_is_what_running_with_the_rule_does(history in history()) {
        let specs = SPECS.map(|s| s.parse::<EarlyStopping>().unwrap());
        for (spec, found) in specs.iter().zip(compare(&specs, &history).unwrap()) {
            let mut monitor = Monitor::new(spec.clone()).unwrap();
            let mut stop = None;
            for seen in &history {
                if monitor.observe(seen.clone()).should_stop() {
                    stop = Some(seen.epoch);
                    break;
                }
            }
            prop_assert_eq!(found.stop_epoch, stop);
            prop_assert_eq!(found.best_epoch, monitor.best().map(|best| best.epoch));
            let reason = monitor.last().and_then(Verdict::stop_reason);
            prop_assert_eq!(text(&found.reason.as_ref()), text(&reason));
            prop_assert!(found.regret.is_none_or(|regret| regret >= 0.0));
            let saved = (history.len() - monitor.history().len()) as f64;
            prop_assert_eq!(found.saved, saved / (history.len() as f64).max(1.0));
        }
    }
}

#[test]
fn a_changed_specification_on_resume_is_the_new_one_from_the_start() {
    let losses = [1.0, 0.9, 0.95, 0.96];
    let history: Vec<_> = (1..).zip(losses).map(|(n, loss)| Observation::new(n, loss)).collect();
    let resumed = Monitor::replay(EarlyStopping::patience(2), history.clone()).unwrap();
    assert!(resumed.last().unwrap().should_stop());
    let resumed = Monitor::replay(EarlyStopping::patience(4), history).unwrap();
    assert_eq!(resumed.last().unwrap().patience_left, Some(2));
}

#[test]
fn a_stored_monitor_with_an_impossible_specification_is_refused() {
    let stored = r#"{"spec": "patience(0)", "history": []}"#;
    let error = serde_json::from_str::<Monitor>(stored).unwrap_err().to_string();
    assert!(error.contains("at least 1 evaluation"), "{error}");
}
