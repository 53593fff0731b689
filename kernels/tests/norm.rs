//! Batch normalization against its naive twin: training, evaluation, gradients, running statistics.

mod common;

use common::*;
use ferrotape_kernels::{Write, norm::*, par::Work, reference::norm as naive};

fn shapes() -> Vec<NormDims> {
    let mut shapes = vec![NormDims { n: 3, c: 2, hw: 3000 }, NormDims { n: 700, c: 5, hw: 1 }];
    for n in [1, 2, 5] {
        for c in [0, 1, 3, 17] {
            shapes.extend([2, 4, 7, 8, 9, 16, 33, 49].map(|hw| NormDims { n, c, hw }));
        }
    }
    shapes
}

/// What a layer with these dimensions could hold: x (with a mean far from 0), gamma, beta.
fn layer(d: &NormDims) -> [Guarded; 3] {
    let x = random(d.n * d.c * d.hw, 1).iter().map(|v| 3.0 * v + 2.0).collect();
    [x, random(d.c, 2), random(d.c, 3)]
}

#[test]
fn training_and_evaluation_equal_the_naive_twin() {
    on_every_isa(|_| {
        for d in shapes() {
            let [x, gamma, beta] = layer(&d);
            let scale = Scale { gamma: &gamma, beta: &beta, eps: 1e-5 };
            let (mut mean, mut var) = (vec![], vec![]);
            let y = output(x.len(), |y| {
                mean = output(d.c, |mean| {
                    var = output(d.c, |var| batch_norm_train(y, mean, var, &x, &scale, &d));
                });
            });
            let (expected_mean, expected_var) = naive::statistics(&f64s(&x), &d);
            assert_near(&mean, &expected_mean, 1e-6, 1e-6);
            assert_near(&var, &expected_var, 1e-6, 2e-6);
            let stats = (&f64s(&mean)[..], &f64s(&var)[..]);
            let affine = (&f64s(&gamma)[..], &f64s(&beta)[..]);
            let expected = naive::batch_norm(&f64s(&x), stats, affine, 1e-5, &d);
            assert_near(&y, &expected, 2e-6, 1e-6);
            let y = output(x.len(), |y| batch_norm_eval(y, &x, &mean, &var, &scale, &d));
            assert_near(&y, &expected, 2e-6, 1e-6);
        }
    });
}

#[test]
fn gradients_equal_the_naive_twin() {
    on_every_isa(|_| {
        for d in shapes() {
            let [x, gamma, beta] = layer(&d);
            let (mean, var) = naive::statistics(&f64s(&x), &d);
            let narrow = |x: &[f64]| x.iter().map(|&v| v as f32).collect::<Guarded>();
            let (mean, var) = (narrow(&mean), narrow(&var));
            let scale = Scale { gamma: &gamma, beta: &beta, eps: 1e-3 };
            let dy = random(x.len(), 4);
            for training in [true, false] {
                let stats = (&f64s(&mean)[..], &f64s(&var)[..]);
                let (dx, dgamma, dbeta) = naive::batch_norm_backward(
                    &f64s(&dy),
                    &f64s(&x),
                    stats,
                    &f64s(&gamma),
                    1e-3,
                    training,
                    &d,
                );
                // What the sums would be if nothing in them cancelled.
                let center = |at: usize| f64::from(mean[at / d.hw % d.c]);
                let far = |(at, x): (usize, f64)| center(at) + center(at).abs() + x;
                let far: Vec<_> = abs(&x).into_iter().enumerate().map(far).collect();
                let (_, dgamma_magnitude, dbeta_magnitude) = naive::batch_norm_backward(
                    &abs(&dy),
                    &far,
                    stats,
                    &abs(&gamma),
                    1e-3,
                    training,
                    &d,
                );
                let terms = d.n * d.hw;
                let dx_magnitude: Vec<_> = (0..x.len())
                    .map(|at| {
                        let c = at / d.hw % d.c;
                        let rstd = (f64::from(var[c]) + 1e-3).sqrt().recip();
                        let x_hat = (far[at] - center(at)) * rstd;
                        let means = (dbeta_magnitude[c] + x_hat * dgamma_magnitude[c])
                            / if training { terms as f64 } else { f64::INFINITY };
                        f64::from(gamma[c]).abs() * rstd * (f64::from(dy[at]).abs() + means)
                    })
                    .collect();
                let close = |what: &str, found: &[f32], expected: &[f64], magnitude: &[f64]| {
                    // Each term is the product of a few roundings.
                    assert_close(&format!("{what} {d:?}"), found, expected, magnitude, terms + 4);
                };
                let got = both_writes(x.len(), |dx, write| {
                    let got_dbeta = output(d.c, |db| {
                        let got_dgamma = output(d.c, |dg| {
                            batch_norm_backward(
                                dx, write, dg, db, &dy, &x, &mean, &var, &scale, training, &d,
                            );
                        });
                        close("dgamma", &got_dgamma, &dgamma, &dgamma_magnitude);
                    });
                    close("dbeta", &got_dbeta, &dbeta, &dbeta_magnitude);
                });
                close("dx", &got, &dx, &dx_magnitude);
            }
        }
    });
}

#[test]
fn a_mean_far_from_zero_does_not_spoil_the_variance() {
    let d = NormDims { n: 4, c: 1, hw: 1000 };
    let x: Guarded = random(4000, 1).iter().map(|v| 1000.0 + v / 8.0).collect();
    let scale = Scale { gamma: &[1.0], beta: &[0.0], eps: 0.0 };
    let (mut y, mut mean, mut var) = (vec![0.0; 4000], [0.0], [0.0]);
    batch_norm_train(&mut y, &mut mean, &mut var, &x, &scale, &d);
    let expected = naive::statistics(&f64s(&x), &d).1[0];
    assert_near(&var, &[expected], 0.0, 1e-4);
}

#[test]
fn running_statistics_use_the_unbiased_variance() {
    let mut stats = [[1.0, 2.0], [1.0, 4.0]].map(|x| Guarded::new(&x));
    let batch = [[3.0, 2.0], [0.75, 1.5]].map(|x| Guarded::new(&x));
    let [mean, var] = &mut stats;
    update_running(mean, var, &batch[0], &batch[1], 0.5, 4);
    assert_eq!(stats.map(|x| x.to_vec()), [[2.0, 2.0], [1.0, 3.0]]);
}

#[test]
fn thread_count_does_not_change_the_bits() {
    for d in [NormDims { n: 7, c: 51, hw: 400 }, NormDims { n: 4000, c: 33, hw: 1 }] {
        let [x, gamma, beta] = layer(&d);
        let scale = Scale { gamma: &gamma, beta: &beta, eps: 1e-5 };
        assert_same_bits("norm", Work::Elements(2 * x.len()), || {
            let [mut mean, mut var, mut dgamma, mut dbeta] = [(); 4].map(|()| vec![0.0; d.c]);
            let (mut y, mut dx, mut eval) = (x.to_vec(), x.to_vec(), x.to_vec());
            batch_norm_train(&mut y, &mut mean, &mut var, &x, &scale, &d);
            batch_norm_backward(
                &mut dx,
                Write::Add,
                &mut dgamma,
                &mut dbeta,
                &y,
                &x,
                &mean,
                &var,
                &scale,
                true,
                &d,
            );
            batch_norm_eval(&mut eval, &x, &mean, &var, &scale, &d);
            [y, dx, eval, mean, var, dgamma, dbeta].concat()
        });
    }
}
