//! Patience against a brute-force oracle: every ordering, with ties, of up to six losses, with NaN
//! and infinities in every place, for every patience from 1 to 5.
//!
//! The oracle knows no state. It looks at a whole prefix of the sequence and answers from the
//! definitions, quantifier by quantifier, as slowly as they are written.

use ferrotape::monitor::{
    Decision, EarlyStopping, MinDelta, Mode, Monitor, NanPolicy, Observation, StopReason,
};

/// All sequences of `n` entries that differ in order: the finite ones take the dense ranks
/// 1, 2, .. with ties; each other one is NaN, inf or -inf.
fn sequences(n: usize) -> Vec<Vec<f64>> {
    const SPECIAL: [f64; 3] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    let alphabet: Vec<f64> = (1..=n).map(|rank| rank as f64).chain(SPECIAL).collect();
    let mut all = vec![vec![]];
    for _ in 0..n {
        let longer = |s: &Vec<f64>| {
            let s = s.clone();
            alphabet.clone().into_iter().map(move |x| [s.as_slice(), &[x]].concat())
        };
        all = all.iter().flat_map(longer).collect();
    }
    let dense = |s: &Vec<f64>| {
        let finite: Vec<f64> = s.iter().copied().filter(|x| x.is_finite()).collect();
        finite.iter().all(|&x| x == 1.0 || finite.contains(&(x - 1.0)))
    };
    all.retain(dense);
    all
}

/// The index of the best of `values`: finite, none smaller, none equal before it.
fn oracle_best(values: &[f64]) -> Option<usize> {
    (0..values.len()).find(|&i| {
        values[i].is_finite()
            && values.iter().all(|&other| !other.is_finite() || values[i] <= other)
    })
}

/// The last index whose value is lower by more than `delta` than that of the anchor before it.
fn oracle_anchor(values: &[f64], delta: f64) -> Option<usize> {
    (0..values.len()).rev().find(|&i| {
        values[i].is_finite()
            && match oracle_anchor(&values[..i], delta) {
                None => true,
                Some(before) => values[before] - values[i] > delta,
            }
    })
}

/// Evaluations after the anchor, without those of the warm-up.
fn oracle_bad(values: &[f64], delta: f64, warm_up: usize) -> usize {
    let after = oracle_anchor(values, delta).map_or(0, |anchor| anchor + 1);
    (after..values.len()).filter(|&i| i >= warm_up).count()
}

struct Case {
    patience: u32,
    delta: f64,
    policy: NanPolicy,
    mode: Mode,
    warm_up: usize,
    min_epochs: usize,
}

fn agrees(values: &[f64], case: &Case) {
    let Case { patience, delta, policy, mode, warm_up, min_epochs } = *case;
    let spec = EarlyStopping::patience(patience)
        .min_delta(MinDelta::Absolute(delta))
        .nan_policy(policy)
        .mode(mode)
        .warm_up(warm_up as u32)
        .min_epochs(min_epochs as u64);
    let mut monitor = Monitor::new(spec).unwrap();
    let sign = if mode == Mode::Max { -1.0 } else { 1.0 };
    for n in 1..=values.len() {
        let (seen, now) = (&values[..n], values[n - 1]);
        let verdict = monitor.observe(Observation::new(n as u64, sign * now));
        let context = format!("{seen:?} {}", monitor.spec());

        let best = oracle_best(seen);
        assert_eq!(verdict.best.map(|b| b.index), best, "best of {context}");
        assert_eq!(verdict.best.map(|b| b.epoch), best.map(|i| i as u64 + 1));
        assert_eq!(verdict.best.map(|b| b.value), best.map(|i| sign * values[i]));
        assert_eq!(verdict.new_best, best == Some(n - 1), "new best of {context}");
        let anchor = oracle_anchor(seen, delta);
        assert_eq!(verdict.anchor.map(|a| a.index), anchor, "anchor of {context}");

        let bad = oracle_bad(seen, delta, warm_up);
        let left = (patience as usize).saturating_sub(bad);
        assert_eq!(verdict.patience_left, Some(left as u32), "patience left of {context}");
        assert_eq!(verdict.roll_back, !now.is_finite() && policy == NanPolicy::RollBack);
        let impatient = n > warm_up && n >= min_epochs && bad >= patience as usize;
        match (&verdict.decision, !now.is_finite() && policy == NanPolicy::Stop) {
            (Decision::Stop(StopReason::NonFinite { .. }), true) => {}
            (Decision::Stop(StopReason::Patience { bad: b, .. }), false) => {
                assert!(impatient && *b as usize == bad, "stopped {context}");
            }
            (Decision::Continue, false) => assert!(!impatient, "did not stop {context}"),
            (other, _) => panic!("{other:?} for {context}"),
        }
    }
}

#[test]
fn there_are_as_many_orderings_as_combinatorics_says() {
    // Weak orderings of 6 are the Fubini number 4683; with j of 6 places special, there are
    // C(6,j) 3^j Fubini(6-j).
    let fubini = [1, 1, 3, 13, 75, 541, 4683];
    let binomial = [1, 6, 15, 20, 15, 6, 1];
    let expected: usize = (0..=6).map(|j| binomial[j] * 3usize.pow(j as u32) * fubini[6 - j]).sum();
    assert_eq!(sequences(6).len(), expected);
}

#[test]
fn patience_on_every_ordering_of_up_to_six_losses() {
    // The verdicts on a sequence's prefixes are those on all shorter sequences.
    for values in sequences(6) {
        for patience in 1..=5 {
            for policy in [NanPolicy::Stop, NanPolicy::CountAsBad] {
                let mode = if patience % 2 == 0 { Mode::Max } else { Mode::Min };
                let case = Case { patience, delta: 0.0, policy, mode, warm_up: 0, min_epochs: 0 };
                agrees(&values, &case);
            }
        }
    }
}

#[test]
fn settings_on_every_ordering_of_five_losses() {
    for values in sequences(5) {
        for patience in 1..=3 {
            for (delta, warm_up, min_epochs) in
                [(1.0, 0, 0), (2.0, 1, 0), (0.0, 3, 0), (0.0, 0, 4), (1.0, 2, 4)]
            {
                let mode = if warm_up % 2 == 0 { Mode::Max } else { Mode::Min };
                let policy = NanPolicy::RollBack;
                agrees(&values, &Case { patience, delta, policy, mode, warm_up, min_epochs });
            }
        }
    }
}
