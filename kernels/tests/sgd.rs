//! SGD against its naive twin over every combination of settings, and over several steps.

mod common;

use common::*;
use ferrotape_kernels::{
    par::Work,
    reference::sgd as naive,
    sgd::{SgdStep, step},
};

/// All combinations of the settings that change the algorithm.
fn settings() -> Vec<SgdStep> {
    let mut all = Vec::new();
    for momentum in [0.0, 0.9] {
        for dampening in [0.0, 0.25] {
            for weight_decay in [0.0, 0.01] {
                for (nesterov, first) in
                    [(false, false), (false, true), (true, false), (true, true)]
                {
                    all.push(SgdStep {
                        lr: 0.1,
                        momentum,
                        dampening,
                        weight_decay,
                        nesterov,
                        first,
                    });
                }
            }
        }
    }
    all
}

#[test]
fn every_setting_equals_the_naive_twin() {
    on_every_isa(|_| {
        for s in settings() {
            for len in [0, 1, 7, 8, 9, 31, 64, 100] {
                let (w, mut v, dw) = (random(len, 1), random(len, 2), random(len, 3));
                if s.first {
                    v.fill(f32::NAN); // must not be read
                }
                let expected: Vec<(f64, f64)> = (0..len)
                    .map(|i| naive::step(w[i].into(), v[i].into(), dw[i].into(), &s))
                    .collect();
                let mut new_v = Vec::new();
                let new_w = guarded(&w, 8e8, |w| {
                    new_v = guarded(&v, 8e8, |v| step(w, v, &dw, &s));
                });
                let (expected_w, expected_v): (Vec<_>, Vec<_>) = expected.into_iter().unzip();
                assert_near(&new_w, &expected_w, 2e-7, 0.0);
                assert_near(&new_v, &expected_v, 3e-7, 0.0);
            }
        }
    });
}

#[test]
fn without_momentum_the_buffer_may_be_missing() {
    let s = SgdStep {
        lr: 0.5,
        momentum: 0.0,
        dampening: 0.0,
        weight_decay: 0.0,
        nesterov: false,
        first: true,
    };
    let mut w = [1.0, 2.0, 3.0];
    step(&mut w, &mut [], &[2.0, 0.0, -2.0], &s);
    assert_eq!(w, [0.0, 2.0, 4.0]);
}

#[test]
fn thread_count_does_not_change_the_bits() {
    let len = 300_001;
    let (w, dw) = (random(len, 1), random(len, 3));
    let s = settings().pop().unwrap();
    assert_same_bits("sgd", Work::Weights(len), || {
        let (mut w, mut v) = (w.to_vec(), vec![0.0; len]);
        step(&mut w, &mut v, &dw, &s);
        step(&mut w, &mut v, &dw, &SgdStep { first: false, ..s });
        [w, v].concat()
    });
}

#[test]
#[should_panic(expected = "sgd: v has 0 values, w has 1")]
fn with_momentum_the_buffer_is_required() {
    step(&mut [0.0], &mut [], &[0.0], &settings().pop().unwrap());
}
