//! What is linear has one transpose, and forward and backward kernels must be each other's:
//! `<A x, dy> = <x, A^T dy>` for random `x` and `dy`. The twins are not asked, so that no mistake
//! in them can hide one here. conv2d.rs holds convolutions to the same.

mod common;

use common::*;
use ferrotape_kernels::{
    Write,
    broadcast::{broadcast_to, sum_to},
    conv2d::{self, Conv2dDims},
    elementwise::*,
    gemm::{Mat, gemm},
    layout::{copy_block, permute},
    linear::{self, LinearDims},
    norm::{NormDims, Scale, batch_norm_backward, batch_norm_eval},
    pool2d::{self, Pool2dDims},
    reduce,
    softmax::{log_softmax_backward, log_softmax_forward, softmax_backward, softmax_forward},
};

/// One side of an identity: an inner product and how far rounding may move it.
#[derive(Clone, Copy, Debug)]
struct Side {
    product: f64,
    bound: f64,
}

/// `<out, with>`, where each number of `out` is a sum of `terms` products.
///
/// The numbers are random in [-1, 1): a partial sum grows as the square root of its terms, and so
/// does the sum of the errors that its additions make; outputs err independently. Together that is
/// about `0.1 u terms sqrt(len)`, with `u = 2^-24`. Ten times as much is allowed, and a constant
/// for sums of few terms.
fn side(out: &[f32], with: &[f32], terms: usize) -> Side {
    assert_eq!(out.len(), with.len());
    let unit = (0.5f64).powi(24);
    let bound = unit * (terms as f64 + 4.0) * (out.len() as f64).sqrt();
    Side { product: inner(out, with), bound }
}

impl std::ops::Add for Side {
    type Output = Side;

    fn add(self, other: Side) -> Side {
        Side { product: self.product + other.product, bound: self.bound + other.bound }
    }
}

#[track_caller]
fn assert_same(what: &str, sides: &[Side]) {
    for other in &sides[1..] {
        let apart = (sides[0].product - other.product).abs();
        assert!(apart <= sides[0].bound + other.bound, "{what} is not adjoint: {sides:?}");
    }
}

/// Runs `f` with fresh random numbers on every instruction set, `count` times.
fn repeat(seed: u64, count: usize, mut f: impl FnMut(&mut Random, &str)) {
    on_every_isa(|isa| {
        let mut random = Random(seed);
        for _ in 0..count {
            f(&mut random, isa.name());
        }
    });
}

/// Numbers of either sign that are safe to divide by: a quotient is not larger than its dividend.
fn divisors(random: &mut Random, len: usize) -> Guarded {
    random.floats(len).iter().map(|v| v + v.signum()).collect()
}

/// `<A B, dc> = <A, dc B^T> = <B, A^T dc>`, with every order of rows and columns in memory.
#[test]
fn gemm_in_both_factors() {
    // The last is deeper than a packed block.
    let sizes = [0, 1, 2, 3, 5, 7, 8, 9, 16, 17, 33, 70, 130, 530];
    repeat(1, 300, |random, isa| {
        let [m, k, n] = [(); 3].map(|()| random.pick(&sizes));
        let [a, b, dc] = [m * k, k * n, m * n].map(|len| random.floats(len));
        // The same numbers are a matrix row by row, or another one column by column.
        let mut mat = |data, rows, cols| match random.pick(&[true, false]) {
            true => Mat::row_major(data, rows, cols),
            false => Mat::row_major(data, cols, rows).t(),
        };
        let (ma, mb) = (mat(&a, m, k), mat(&b, k, n));
        let mdc = Mat::row_major(&dc, m, n);
        let c = output(m * n, |c| gemm(c, Write::Set, ma, mb));
        // The gradient of a matrix that is stored by columns is computed transposed.
        let da = output(m * k, |da| match ma.col_stride {
            1 => gemm(da, Write::Set, mdc, mb.t()),
            _ => gemm(da, Write::Set, mb, mdc.t()),
        });
        let db = output(k * n, |db| match mb.col_stride {
            1 => gemm(db, Write::Set, ma.t(), mdc),
            _ => gemm(db, Write::Set, mdc.t(), ma),
        });
        let sides = [side(&c, &dc, k), side(&da, &a, n), side(&db, &b, m)];
        assert_same(&format!("gemm {m} x {k} x {n} on {isa}"), &sides);
    });
}

/// `<x w^T + b, dy> = <x, dx> + <b, db> = <w, dw> + <b, db>`
#[test]
fn linear_in_input_weight_and_bias() {
    let sizes = [0, 1, 2, 3, 7, 10, 16, 33, 84, 130];
    repeat(2, 300, |random, isa| {
        let [n, i, o] = [(); 3].map(|()| random.pick(&sizes));
        let d = LinearDims { n, i, o };
        let [x, w, bias, dy] = [n * i, o * i, o, n * o].map(|len| random.floats(len));
        let y = output(n * o, |y| linear::forward(y, &x, &w, Some(&bias), d));
        let dx = output(n * i, |dx| linear::backward_input(dx, Write::Set, &dy, &w, d));
        let dw = output(o * i, |dw| linear::backward_weight(dw, Write::Set, &dy, &x, d));
        let db = output(o, |db| linear::backward_bias(db, Write::Set, &dy, d));
        let through_bias = side(&db, &bias, n);
        let sides = [
            side(&y, &dy, i + 1),
            side(&dx, &x, o) + through_bias,
            side(&dw, &w, n) + through_bias,
        ];
        assert_same(&format!("linear {d:?} on {isa}"), &sides);
    });
}

/// `<conv(x, w) + b, dy> = <x, dx> + <b, db>`: what conv2d.rs leaves out.
#[test]
fn convolution_in_its_bias() {
    repeat(3, 100, |random, isa| {
        let mut pick = |from: &[usize]| random.pick(from);
        let d = Conv2dDims {
            n: pick(&[0, 1, 2, 3]),
            c: pick(&[1, 3, 16]),
            h: pick(&[3, 8, 17]),
            w: pick(&[3, 8, 17]),
            o: pick(&[1, 2, 7, 16, 17]),
            kernel: [pick(&[1, 3]); 2],
            stride: [pick(&[1, 2]); 2],
            padding: [pick(&[0, 1]); 2],
            dilation: [1; 2],
            groups: 1,
        };
        let lens = [d.x_len(), d.w_len(), d.o, d.y_len()];
        let [x, w, bias, dy] = lens.map(|len| random.floats(len));
        let y = output(dy.len(), |y| conv2d::forward(y, &x, &w, Some(&bias), &d));
        let dx = output(x.len(), |dx| conv2d::backward_input(dx, Write::Set, &dy, &w, &d));
        let db = output(d.o, |db| conv2d::backward_bias(db, Write::Set, &dy, &d));
        let taps = d.kernel[0] * d.kernel[1];
        let sides = [
            side(&y, &dy, d.c * taps + 1),
            side(&dx, &x, d.o * taps) + side(&db, &bias, d.n * d.oh() * d.ow()),
        ];
        assert_same(&format!("conv2d {d:?} on {isa}"), &sides);
    });
}

/// Max-pooling is linear where the winners stay the same, as those of `x` are at `x`.
#[test]
fn pooling_average_and_for_given_winners() {
    let sizes = [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 28, 35];
    repeat(4, 400, |random, isa| {
        let d = loop {
            let mut pair = |from: &[usize]| [random.pick(from), random.pick(from)];
            let ([h, w], kernel) = (pair(&sizes), pair(&[1, 2, 2, 3, 5]));
            let (stride, padding) = (pair(&[1, 2, 2, 3]), pair(&[0, 0, 1, 2]));
            let [n, c] = pair(&[1, 2, 3]);
            let fits = |axis: usize, size: usize| {
                2 * padding[axis] <= kernel[axis] && size + 2 * padding[axis] >= kernel[axis]
            };
            if fits(0, h) && fits(1, w) {
                break Pool2dDims { n, c, h, w, kernel, stride, padding };
            }
        };
        let (x, dy) = (random.floats(d.x_len()), random.floats(d.y_len()));
        let area = d.kernel[0] * d.kernel[1];

        let y = output(dy.len(), |y| pool2d::avg_forward(y, &x, &d));
        let dx = output(x.len(), |dx| pool2d::avg_backward(dx, Write::Set, &dy, &d));
        let what = format!("{d:?} on {isa}");
        assert_same(&format!("average {what}"), &[side(&y, &dy, area), side(&dx, &x, area)]);

        let mut codes = vec![0; dy.len()];
        let y = output(dy.len(), |y| pool2d::max_forward(y, Some(&mut codes), &x, &d));
        let dx = output(x.len(), |dx| pool2d::max_backward(dx, Write::Set, &dy, &codes, &d));
        assert_same(&format!("max {what}"), &[side(&y, &dy, 1), side(&dx, &x, area)]);
    });
}

#[test]
fn pooling_of_whole_planes() {
    repeat(5, 200, |random, isa| {
        let rows = random.pick(&[0, 1, 2, 3, 17, 64]);
        let hw = random.pick(&[1, 3, 4, 7, 16, 49, 64, 1023, 3000]);
        let (x, dy) = (random.floats(rows * hw), random.floats(rows));
        let y = output(rows, |y| pool2d::global_avg_forward(y, &x, rows, hw));
        let dx = output(x.len(), |dx| {
            pool2d::global_avg_backward(dx, Write::Set, &dy, rows, hw);
        });
        let what = format!("global average of {rows} x {hw} on {isa}");
        assert_same(&what, &[side(&y, &dy, 1), side(&dx, &x, 1)]);
    });
}

/// A random shape of up to 5 axes, many of extent 1.
fn shape(random: &mut Random) -> Vec<usize> {
    let rank = random.pick(&[0, 1, 2, 2, 3, 3, 4, 4, 5]);
    let extents: &[usize] = if rank < 3 { &[1, 2, 7, 33, 70, 130] } else { &[1, 2, 3, 4, 7, 17] };
    (0..rank).map(|_| random.pick(extents)).collect()
}

fn elements(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// The inverse order of axes undoes a permutation, and is its transpose.
#[test]
fn permuted_axes() {
    repeat(6, 300, |random, isa| {
        let x_shape = shape(random);
        let rank = x_shape.len();
        let mut axes: Vec<_> = (0..rank).collect();
        axes.sort_by_cached_key(|_| random.next());
        let y_shape: Vec<_> = axes.iter().map(|&axis| x_shape[axis]).collect();
        let mut back: Vec<_> = (0..rank).collect();
        back.sort_by_key(|&axis| axes[axis]);
        let len = elements(&x_shape);
        let (x, dy) = (random.floats(len), random.floats(len));
        let y = output(len, |y| permute(y, Write::Set, &x, &x_shape, &axes));
        let dx = output(len, |dx| permute(dx, Write::Set, &dy, &y_shape, &back));
        let what = format!("permute {x_shape:?} by {axes:?} on {isa}");
        assert_same(&what, &[side(&y, &dy, 1), side(&dx, &x, 1)]);
    });
}

/// A block of `src` that is added to `dst`, and one of `dst`'s gradient that is put into `src`'s.
#[test]
fn copied_blocks() {
    repeat(7, 300, |random, isa| {
        let block = shape(random);
        let mut around = || -> (Vec<usize>, Vec<usize>) {
            let place = |&extent: &usize| {
                let [before, behind] = [(); 2].map(|()| random.pick(&[0, 0, 1, 3]));
                (before + extent + behind, before)
            };
            block.iter().map(place).unzip()
        };
        let ((src_shape, src_at), (dst_shape, dst_at)) = (around(), around());
        let [src, old, ddst] =
            [&src_shape, &dst_shape, &dst_shape].map(|s| random.floats(elements(s)));
        let dst = guarded(&old, -7e33, |dst| {
            copy_block(dst, &dst_shape, &dst_at, Write::Add, &src, &src_shape, &src_at, &block);
        });
        let zeros = vec![0.0; src.len()];
        let dsrc = guarded(&zeros, -7e33, |dsrc| {
            copy_block(dsrc, &src_shape, &src_at, Write::Set, &ddst, &dst_shape, &dst_at, &block);
        });
        let what = format!("{block:?} of {src_shape:?} into {dst_shape:?} on {isa}");
        assert_same(&what, &[side(&dst, &ddst, 1), side(&dsrc, &src, 1) + side(&old, &ddst, 1)]);
    });
}

/// Repeating and summing, along any axes.
#[test]
fn broadcasts_and_sums() {
    repeat(8, 300, |random, isa| {
        let large = shape(random);
        let axes: Vec<_> = (0..large.len()).filter(|_| random.pick(&[true, false])).collect();
        let kept = |(axis, &extent): (usize, &usize)| if axes.contains(&axis) { 1 } else { extent };
        let small: Vec<_> = large.iter().enumerate().map(kept).collect();
        // Leading axes of extent 1 may be left out.
        let leading = small.iter().take_while(|&&extent| extent == 1).count();
        let missing = random.pick(&[0, leading]);
        let (x, dy) = (random.floats(elements(&small)), random.floats(elements(&large)));
        let terms = dy.len() / x.len();
        let y = output(dy.len(), |y| broadcast_to(y, &large, &x, &small[missing..]));
        let dx = output(x.len(), |dx| sum_to(dx, Write::Set, &small[missing..], &dy, &large));
        let sums = output(x.len(), |dx| reduce::sum_axes(dx, &dy, &large, &axes));
        let what = format!("{small:?} to {large:?} on {isa}");
        let sides = [side(&y, &dy, 1), side(&dx, &x, terms), side(&sums, &x, terms)];
        assert_same(&what, &sides);
    });
}

#[test]
fn the_sum_of_everything() {
    repeat(9, 40, |random, isa| {
        let len = random.pick(&[0, 1, 7, 8, 9, 31, 33, 1023, 1025, 4099, 70_001]);
        let (x, dy) = (random.floats(len), random.floats(1));
        let dx = output(len, |dx| broadcast_to(dx, &[len], &dy, &[]));
        let sides = [side(&[reduce::sum(&x)], &dy, len), side(&dx, &x, 1)];
        assert_same(&format!("sum of {len} on {isa}"), &sides);
    });
}

/// Products with, quotients by and slopes of something fixed; ReLU is linear where no sign changes.
#[test]
fn elementwise_factors() {
    type Kernel<'a> = &'a dyn Fn(&mut [f32], &[f32]);
    repeat(10, 100, |random, isa| {
        let len = random.pick(&[0, 1, 3, 7, 8, 9, 16, 17, 31, 33, 100, 1000]);
        let [x, dy, factor] = [(); 3].map(|()| random.floats(len));
        let (divisor, alpha) = (divisors(random, len), random.float());
        let set = Write::Set;
        let pairs: [(&str, Kernel, Kernel); 6] = [
            ("neg", &neg_forward, &|dx, dy| neg_backward(dx, set, dy)),
            ("scale", &|y, x| scale(y, x, alpha), &|dx, dy| add_scaled(dx, set, dy, alpha)),
            ("mul", &|y, x| mul(y, x, &factor), &|dx, dy| mul_backward(dx, set, dy, &factor)),
            ("div", &|y, x| div(y, x, &divisor), &|dx, dy| div_backward_a(dx, set, dy, &divisor)),
            ("relu", &relu_forward, &|dx, dy| relu_backward(dx, set, dy, &x)),
            ("leaky_relu", &|y, x| leaky_relu_forward(y, x, alpha), &|dx, dy| {
                leaky_relu_backward(dx, set, dy, &x, alpha)
            }),
        ];
        for (op, forward, backward) in pairs {
            let y = output(len, |y| forward(y, &x));
            let dx = output(len, |dx| backward(dx, &dy));
            let sides = [side(&y, &dy, 1), side(&dx, &x, 1)];
            assert_same(&format!("{op} of {len} on {isa}"), &sides);
        }
    });
}

/// `<a + b, dy> = <a, dy> + <b, dy>`, and the same with a minus.
#[test]
fn sums_and_differences() {
    type Kernel = fn(&mut [f32], &[f32], &[f32]);
    repeat(11, 50, |random, isa| {
        let len = random.pick(&[0, 1, 7, 8, 9, 16, 17, 31, 33, 1000]);
        let [a, b, dy] = [(); 3].map(|()| random.floats(len));
        for (op, kernel, sign) in [("add", add as Kernel, 1.0), ("sub", sub, -1.0)] {
            let y = output(len, |y| kernel(y, &a, &b));
            let [da, db] = [1.0, sign].map(|s| output(len, |d| add_scaled(d, Write::Set, &dy, s)));
            let sides = [side(&y, &dy, 1), side(&da, &a, 1) + side(&db, &b, 1)];
            assert_same(&format!("{op} of {len} on {isa}"), &sides);
        }
    });
}

/// `<y, dy> = <gamma, dgamma> + <beta, dbeta> = <x - mean, dx> + <beta, dbeta>` with the
/// statistics given. Where gradients flow through them, too, the Jacobian of `x` is symmetric.
#[test]
fn batch_norm_in_input_scale_and_offset() {
    repeat(12, 200, |random, isa| {
        let mut pick = |from: &[usize]| random.pick(from);
        let d = NormDims {
            n: pick(&[1, 2, 5, 33]),
            c: pick(&[1, 3, 17]),
            hw: pick(&[1, 4, 7, 8, 9, 16, 49, 260]),
        };
        let len = d.n * d.c * d.hw;
        let [gamma, beta, mean] = [(); 3].map(|()| random.floats(d.c));
        // Factors of at most 1.
        let var: Guarded = random.floats(d.c).iter().map(|v| v + 2.0).collect();
        let scale = Scale { gamma: &gamma, beta: &beta, eps: 0.0 };
        let [x, dy, other] = [(); 3].map(|()| random.floats(len));
        let backward = |dy: &[f32], training| {
            let [mut dgamma, mut dbeta] = [(); 2].map(|()| vec![f32::NAN; d.c]);
            let dx = output(len, |dx| {
                let (dgamma, dbeta) = (&mut dgamma[..], &mut dbeta[..]);
                batch_norm_backward(
                    dx,
                    Write::Set,
                    dgamma,
                    dbeta,
                    dy,
                    &x,
                    &mean,
                    &var,
                    &scale,
                    training,
                    &d,
                );
            });
            [dx, dgamma, dbeta]
        };
        let y = output(len, |y| batch_norm_eval(y, &x, &mean, &var, &scale, &d));
        let [dx, dgamma, dbeta] = backward(&dy, false);
        let centred: Vec<_> = x.iter().enumerate().map(|(i, x)| x - mean[i / d.hw % d.c]).collect();
        let in_beta = side(&dbeta, &beta, d.n * d.hw);
        let sides = [
            side(&y, &dy, 2),
            side(&dgamma, &gamma, d.n * d.hw) + in_beta,
            side(&dx, &centred, 1) + in_beta,
        ];
        assert_same(&format!("batch_norm_eval {d:?} on {isa}"), &sides);

        let [[dx, ..], [other_dx, ..]] = [&dy, &other].map(|dy| backward(dy, true));
        let sides = [side(&dx, &other, 3), side(&other_dx, &dy, 3)];
        assert_same(&format!("batch_norm_train {d:?} on {isa}"), &sides);
    });
}

/// The Jacobian of a softmax is symmetric, and that of its logarithm with the softmax as a factor.
#[test]
fn softmax_is_its_own_adjoint() {
    repeat(13, 200, |random, isa| {
        let rows = random.pick(&[0, 1, 2, 5]);
        let cols = random.pick(&[1, 2, 7, 8, 9, 10, 16, 17, 100, 1000]);
        let [x, dy, other] = [(); 3].map(|()| random.floats(rows * cols));
        let y = output(x.len(), |y| softmax_forward(y, &x, rows, cols));
        let log_y = output(x.len(), |y| log_softmax_forward(y, &x, rows, cols));
        let backward =
            |dy: &[f32]| output(x.len(), |dx| softmax_backward(dx, Write::Set, dy, &y, rows, cols));
        let times_y: Vec<_> = dy.iter().zip(&y).map(|(dy, y)| dy * y).collect();
        let log_dx = output(x.len(), |dx| {
            log_softmax_backward(dx, Write::Set, &times_y, &log_y, rows, cols);
        });
        let sides = [
            side(&backward(&dy), &other, 3),
            side(&backward(&other), &dy, 3),
            side(&log_dx, &other, 3),
        ];
        assert_same(&format!("softmax of {rows} x {cols} on {isa}"), &sides);
    });
}
