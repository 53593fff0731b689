//! Softmax and cross-entropy against their naive twins, extreme logits, NaN, thread counts.

mod common;

use common::*;
use ferrotape_kernels::{Write, par::Work, reference::softmax as naive, softmax::*};

const SHAPES: [(usize, usize); 11] = [
    (0, 3),
    (3, 0),
    (1, 1),
    (5, 2),
    (4, 7),
    (3, 8),
    (7, 10),
    (2, 16),
    (3, 33),
    (1, 100),
    (2, 1000),
];

#[test]
fn softmax_and_its_logarithm_equal_the_naive_twins() {
    on_every_isa(|_| {
        for (rows, cols) in SHAPES {
            for scale in [1.0, 30.0] {
                let x: Guarded = random(rows * cols, 1).iter().map(|v| v * scale).collect();
                let dy = random(rows * cols, 2);
                let y = Guarded::new(&output(x.len(), |y| softmax_forward(y, &x, rows, cols)));
                // The rounding of x - max is a relative error of its exponential.
                let relative = 2e-7 * f64::from(5.0 + scale);
                assert_near(&y, &naive::softmax(&f64s(&x), cols), 1e-38, relative);
                let dx = both_writes(x.len(), |dx, w| softmax_backward(dx, w, &dy, &y, rows, cols));
                assert_near(&dx, &naive::softmax_backward(&f64s(&dy), &f64s(&y), cols), 5e-7, 0.0);

                let y = Guarded::new(&output(x.len(), |y| log_softmax_forward(y, &x, rows, cols)));
                assert_near(&y, &naive::log_softmax(&f64s(&x), cols), 4e-7, 2e-7);
                let dx =
                    both_writes(x.len(), |dx, w| log_softmax_backward(dx, w, &dy, &y, rows, cols));
                let expected = naive::log_softmax_backward(&f64s(&dy), &f64s(&y), cols);
                assert_near(&dx, &expected, 1e-5, 1e-6);
            }
        }
    });
}

#[test]
fn cross_entropy_equals_the_naive_twin() {
    on_every_isa(|_| {
        for (n, c) in SHAPES.into_iter().filter(|shape| shape.1 > 0) {
            for smoothing in [0.0, 0.125] {
                let logits: Guarded = random(n * c, 3).iter().map(|v| v * 8.0).collect();
                let targets: Vec<usize> = (0..n).map(|i| (i * 7 + c - 1) % c).collect();
                let dlosses = random(n, 4);
                let mut log_probs = Vec::new();
                let losses = output(n, |losses| {
                    log_probs = output(n * c, |log_probs| {
                        cross_entropy_forward(
                            losses, log_probs, &logits, &targets, smoothing, n, c,
                        );
                    });
                });
                let log_probs = Guarded::new(&log_probs);
                let s = f64::from(smoothing);
                let expected = naive::cross_entropy(&f64s(&logits), &targets, s, c);
                assert_near(&losses, &expected, 1e-6, 1e-6);
                let dlogits = both_writes(n * c, |dx, write| {
                    cross_entropy_backward(
                        dx, write, &dlosses, &log_probs, &targets, smoothing, n, c,
                    );
                });
                let expected =
                    naive::cross_entropy_backward(&f64s(&dlosses), &f64s(&logits), &targets, s, c);
                assert_near(&dlogits, &expected, 1e-6, 0.0);
            }
        }
    });
}

#[test]
fn extreme_logits_neither_overflow_nor_vanish() {
    on_every_isa(|_| {
        let inf = f32::INFINITY;
        let x = [3e38, -3e38, 3e38, 0.0, -inf, 0.0, -1e4, -1e4, -1e4];
        let y = output(9, |y| softmax_forward(y, &x, 3, 3));
        let third = 1.0 / 3.0;
        assert_near(&y, &[0.5, 0.0, 0.5, 0.5, 0.0, 0.5, third, third, third], 0.0, 1e-7);
        let y = output(9, |y| log_softmax_forward(y, &x, 3, 3));
        assert_eq!((y[1], y[4]), (-inf, -inf));
        assert_near(&y[6..], &[third.ln(); 3], 0.0, 1e-7);
    });
}

#[test]
fn a_nan_spoils_its_own_row_and_no_other() {
    on_every_isa(|_| {
        for cols in [3, 8, 10, 40] {
            for at in 0..cols {
                let mut x = random(3 * cols, 5);
                x[cols + at] = f32::NAN;
                for forward in [softmax_forward, log_softmax_forward] {
                    let y = output(x.len(), |y| forward(y, &x, 3, cols));
                    assert!(
                        y.chunks(cols)
                            .enumerate()
                            .all(|(row, y)| { y.iter().all(|y| y.is_nan() == (row == 1)) })
                    );
                }
            }
        }
    });
}

#[test]
fn thread_count_does_not_change_the_bits() {
    let (n, c) = (1001, 77);
    let x = random(n * c, 6);
    let targets: Vec<usize> = (0..n).map(|i| i % c).collect();
    assert_same_bits("softmax", Work::Elements(2 * n * c), || {
        let (mut losses, mut log_probs, mut dx) = (vec![0.0; n], x.to_vec(), x.to_vec());
        cross_entropy_forward(&mut losses, &mut log_probs, &x, &targets, 0.1, n, c);
        cross_entropy_backward(&mut dx, Write::Add, &losses, &log_probs, &targets, 0.1, n, c);
        let (mut y, mut log_y) = (x.to_vec(), x.to_vec());
        softmax_forward(&mut y, &dx, n, c);
        softmax_backward(&mut dx, Write::Add, &log_probs, &y, n, c);
        log_softmax_forward(&mut log_y, &dx, n, c);
        log_softmax_backward(&mut dx, Write::Add, &log_probs, &log_y, n, c);
        [losses, log_probs, y, log_y, dx].concat()
    });
}

#[test]
#[should_panic(expected = "cross_entropy: target 3 of row 1 is not one of 3 classes")]
fn a_target_out_of_range_is_named() {
    cross_entropy_forward(&mut [0.0; 2], &mut [0.0; 6], &[0.0; 6], &[2, 3], 0.0, 2, 3);
}
