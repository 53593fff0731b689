//! Pooling against its naive twin, PyTorch's rules for ties and NaN, thread counts.

mod common;

use common::*;
use ferrotape_kernels::pool2d::{self, Pool2dDims};
use ferrotape_kernels::reference::pool2d as naive;

/// Every legal shape of the grid.
fn shapes() -> Vec<Pool2dDims> {
    let mut shapes = Vec::new();
    let sizes = [(1, 1), (2, 2), (3, 5), (4, 4), (7, 9), (8, 16), (9, 17), (6, 34), (28, 28)];
    let windows = [
        ([2, 2], [2, 2], [0, 0]),
        ([2, 2], [1, 1], [0, 0]),
        ([2, 2], [2, 2], [1, 1]),
        ([3, 3], [2, 2], [1, 1]),
        ([3, 2], [1, 3], [1, 0]),
        ([1, 1], [1, 1], [0, 0]),
        ([5, 3], [3, 2], [2, 1]),
        ([3, 3], [3, 3], [0, 0]),
    ];
    for (n, c) in [(0, 3), (1, 1), (2, 3)] {
        for (h, w) in sizes {
            for (kernel, stride, padding) in windows {
                let d = Pool2dDims { n, c, h, w, kernel, stride, padding };
                if h + 2 * padding[0] >= kernel[0] && w + 2 * padding[1] >= kernel[1] {
                    shapes.push(d);
                }
            }
        }
    }
    shapes
}

#[test]
fn max_pool_equals_the_naive_twin_exactly() {
    on_every_isa(|_| {
        for (seed, d) in shapes().into_iter().enumerate() {
            // Few distinct values: ties everywhere.
            let x: Vec<f32> =
                random(d.x_len(), seed as u64).iter().map(|v| (v * 4.0).round()).collect();
            let (expected, expected_codes) = naive::max_forward(&f64s(&x), &d);
            let mut codes = vec![0xee; d.y_len()];
            let y = output(d.y_len(), |y| {
                codes = guarded(&codes, 0xee, |codes| pool2d::max_forward(y, Some(codes), &x, &d));
            });
            assert_eq!(f64s(&y), expected, "{d:?}");
            assert_eq!(codes, expected_codes, "{d:?}");
            assert_eq!(output(d.y_len(), |y| pool2d::max_forward(y, None, &x, &d)), y, "{d:?}");

            let dy = random(d.y_len(), 77);
            let dx = both_writes(d.x_len(), |dx, write| {
                pool2d::max_backward(dx, write, &dy, &codes, &d)
            });
            assert_near(&dx, &naive::max_backward(&f64s(&dy), &codes, &d), 1e-6, 0.0);
        }
    });
}

#[test]
fn max_pool_propagates_nan_and_handles_infinities() {
    on_every_isa(|_| {
        for (seed, d) in shapes().into_iter().enumerate() {
            let special = |v: f32| match (v * 8.0) as i32 {
                3 | -3 => f32::NAN,
                1 => f32::INFINITY,
                -8..=-4 => f32::NEG_INFINITY,
                _ => v,
            };
            let x: Vec<f32> = random(d.x_len(), seed as u64).into_iter().map(special).collect();
            let (expected, expected_codes) = naive::max_forward(&f64s(&x), &d);
            let mut codes = vec![0; d.y_len()];
            let y = output(d.y_len(), |y| pool2d::max_forward(y, Some(&mut codes), &x, &d));
            assert_near(&y, &expected, 0.0, 0.0);
            assert_eq!(codes, expected_codes, "{d:?}");
        }
    });
}

#[test]
fn average_pool_equals_the_naive_twin() {
    on_every_isa(|_| {
        for (seed, d) in shapes().into_iter().enumerate() {
            let x = random(d.x_len(), seed as u64);
            let y = output(d.y_len(), |y| pool2d::avg_forward(y, &x, &d));
            assert_near(&y, &naive::avg_forward(&f64s(&x), &d), 1e-6, 0.0);
            let dy = random(d.y_len(), 5);
            let dx = both_writes(d.x_len(), |dx, write| pool2d::avg_backward(dx, write, &dy, &d));
            assert_near(&dx, &naive::avg_backward(&f64s(&dy), &d), 1e-6, 0.0);
        }
    });
}

#[test]
fn global_average_pool_is_the_mean_of_each_plane() {
    on_every_isa(|_| {
        for (rows, hw) in [(0, 4), (1, 1), (3, 7), (5, 8), (2, 49), (7, 300), (2, 20_000)] {
            let x = random(rows * hw, 3);
            let y = output(rows, |y| pool2d::global_avg_forward(y, &x, rows, hw));
            let mean = |row: &[f64]| row.iter().sum::<f64>() / hw as f64;
            assert_near(&y, &f64s(&x).chunks(hw).map(mean).collect::<Vec<_>>(), 1e-7, 1e-6);
            let dy = random(rows, 4);
            let dx =
                both_writes(rows * hw, |dx, w| pool2d::global_avg_backward(dx, w, &dy, rows, hw));
            let expected: Vec<_> =
                (0..rows * hw).map(|i| f64::from(dy[i / hw]) / hw as f64).collect();
            assert_near(&dx, &expected, 0.0, 1e-6);
        }
    });
}

#[test]
fn thread_count_does_not_change_the_bits() {
    for kernel in [[2, 2], [3, 3]] {
        let d = Pool2dDims { n: 3, c: 11, h: 64, w: 70, kernel, stride: [2, 2], padding: [0, 0] };
        let x = random(d.x_len(), 1);
        assert_same_bits("pool2d", || {
            let mut y = vec![0.0; d.y_len()];
            let mut codes = vec![0; d.y_len()];
            let mut dx = vec![0.0; d.x_len()];
            pool2d::max_forward(&mut y, Some(&mut codes), &x, &d);
            pool2d::max_backward(&mut dx, ferrotape_kernels::Write::Set, &y, &codes, &d);
            pool2d::avg_backward(&mut dx, ferrotape_kernels::Write::Add, &y, &d);
            pool2d::avg_forward(&mut y, &dx, &d);
            [y, dx].concat()
        });
    }
}

#[test]
#[should_panic(expected = "max_pool2d: y has 3 values")]
fn a_wrong_length_is_named() {
    let d = Pool2dDims { n: 1, c: 1, h: 4, w: 4, kernel: [2, 2], stride: [2, 2], padding: [0, 0] };
    pool2d::max_forward(&mut [0.0; 3], None, &[0.0; 16], &d);
}
