//! How often does each rule stop a run that still had something to gain, and how much does it save
//! when there was nothing? Reported as the table of `docs/early-stopping-study.md` (`cargo test
//! --test monitor_false_stops -- --nocapture`) over synthetic curves whose noiseless shape, and so
//! the truth, is known:
//!
//! ```text
//! noisy-flat       1 + 0.3 exp(-t/25), noise 0.02: the gain of a step is smaller than its noise
//! double descent   falls to 0.7 at t = 20, rises to 1.0 at t = 50, falls below 0.5 by t = 120
//! overfitting      falls to its minimum at t = 30, then rises by 0.005 per evaluation
//! ```
//!
//! A stop is *false* if the noiseless curve at the best evaluation found by then is worse than its
//! minimum by more than a tenth of all there was to gain.

use ferrotape::monitor::{Comparison, EarlyStopping, Observation, compare};

const RUNS: u64 = 200;
const EVALUATIONS: u64 = 120;
const EXAMPLES: u64 = 50;

const RULES: [&str; 12] = [
    "patience(1)",
    "patience(3)",
    "patience(5)",
    "patience(10)",
    "patience(20)",
    "patience(50)",
    "patience(5), smoothing=mean(5)",
    "gl(5)",
    "pq(0.75,k=5)",
    "up(3,k=5)",
    "paired(10,z=1.645)",
    "all(patience(10),gl(5))",
];

/// A uniform number in (0, 1) from its coordinates (SplitMix64's finaliser).
fn uniform(run: u64, t: u64, i: u64) -> f64 {
    let mut z = (run << 40) ^ (t << 20) ^ i;
    for multiplier in [0xbf58476d1ce4e5b9, 0x94d049bb133111eb] {
        z = (z ^ (z >> 30)).wrapping_add(0x9e3779b97f4a7c15).wrapping_mul(multiplier);
    }
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// Roughly normal with mean 0 and standard deviation 1: twelve uniforms, less 6.
fn normal(run: u64, t: u64, i: u64) -> f64 {
    (0..12).map(|j| uniform(run, t, 12 * i + j)).sum::<f64>() - 6.0
}

fn noisy_flat(t: f64) -> f64 {
    1.0 + 0.3 * (-t / 25.0).exp()
}

fn double_descent(t: f64) -> f64 {
    let first = 0.7 + 0.8 * (-t / 5.0).exp();
    let bump = 0.3 * (-((t - 50.0) / 14.0).powi(2)).exp();
    first + bump - 0.25 / (1.0 + (-(t - 80.0) / 8.0).exp())
}

fn overfitting(t: f64) -> f64 {
    if t < 30.0 { 0.5 + 0.0005 * (30.0 - t).powi(2) } else { 0.5 + 0.005 * (t - 30.0) }
}

/// One run: per-example losses spread by 0.5 around a difficulty that stays, so that the mean's
/// noise from one evaluation to the next is `noise`.
fn record(curve: fn(f64) -> f64, noise: f64, run: u64) -> Vec<Observation> {
    let seen = |t: u64| {
        let wobble = noise * (EXAMPLES as f64).sqrt();
        let loss = |i| {
            let difficulty = 0.5 * normal(run, 0, i + 1);
            curve(t as f64) + difficulty + wobble * normal(run, t, i + 1)
        };
        let losses: Vec<f32> = (0..EXAMPLES).map(|i| loss(i) as f32).collect();
        let mean = losses.iter().map(|&x| f64::from(x)).sum::<f64>() / EXAMPLES as f64;
        let train = 1.2 * (-(t as f64) / 30.0).exp() + 0.002 * normal(run, t, 0).abs();
        Observation { example_losses: losses, ..Observation::new(t, mean).with_train_loss(train) }
    };
    (1..=EVALUATIONS).map(seen).collect()
}

/// Per rule: the share of false stops, and the mean share of training saved.
fn study(curve: fn(f64) -> f64, noise: f64) -> Vec<(f64, f64)> {
    let specs = RULES.map(|rule| rule.parse::<EarlyStopping>().unwrap());
    let truth: Vec<f64> = (1..=EVALUATIONS).map(|t| curve(t as f64)).collect();
    let lowest = truth.iter().copied().fold(f64::INFINITY, f64::min);
    let tolerated = lowest + 0.1 * (truth[0] - lowest);
    let is_false = |found: &Comparison| {
        found.stop_epoch.is_some()
            && truth[found.best_epoch.expect("finite losses") as usize - 1] > tolerated
    };
    let mut totals = vec![(0.0, 0.0); RULES.len()];
    for run in 0..RUNS {
        let found = compare(&specs, &record(curve, noise, run)).unwrap();
        for (total, found) in totals.iter_mut().zip(&found) {
            total.0 += f64::from(u8::from(is_false(found))) / RUNS as f64;
            total.1 += found.saved / RUNS as f64;
        }
    }
    totals
}

#[test]
fn patience_buys_fewer_false_stops_with_more_training() {
    let studies = [
        ("noisy-flat", noisy_flat as fn(f64) -> f64, 0.02),
        ("double descent", double_descent, 0.01),
        ("overfitting", overfitting, 0.01),
    ];
    let studies = studies.map(|(name, curve, noise)| (name, study(curve, noise)));
    print!("\n| rule |");
    studies.iter().for_each(|(name, _)| print!(" {name}: false stops | saved |"));
    println!("\n|---|--:|--:|--:|--:|--:|--:|");
    for (i, rule) in RULES.iter().enumerate() {
        print!("| `{rule}` |");
        for (false_stops, saved) in studies.iter().map(|(_, results)| results[i]) {
            print!(" {:.1}% | {:.0}% |", 100.0 * false_stops, 100.0 * saved);
        }
        println!();
    }
    for (name, results) in studies {
        for pair in results[..6].windows(2) {
            assert!(pair[0].0 >= pair[1].0, "{name}: more patience, more false stops: {pair:?}");
            assert!(pair[0].1 >= pair[1].1, "{name}: more patience saves more: {pair:?}");
        }
        // No rule that waits for less than the hill's width crosses it.
        let false_stops = |rule| results[RULES.iter().position(|r| *r == rule).unwrap()].0;
        match name {
            "noisy-flat" => assert!(false_stops("patience(1)") > 0.9),
            "double descent" => {
                assert!(false_stops("patience(20)") > 0.9 && false_stops("patience(50)") < 0.1);
            }
            _ => {
                for rule in &RULES[2..] {
                    assert!(false_stops(rule) < 0.1, "{rule} stops before overfitting begins");
                }
            }
        }
    }
}
