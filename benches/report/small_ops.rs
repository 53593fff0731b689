//! W3: the kernels that are bound by memory rather than arithmetic. Bytes are those that must move: each input read
//! once, each output written once.

use std::hint::black_box;

use ferrotape_kernels::norm::{self, NormDims, Scale};
use ferrotape_kernels::pool2d::{self, Pool2dDims};
use ferrotape_kernels::sgd::{self, SgdStep};
use ferrotape_kernels::{Write, elementwise, reference, softmax};

use super::Report;
use super::rows::Row;
use super::workloads::{SGD_LEN, assert_close, random, wide};

impl Report {
    pub(super) fn w3(&self, threads: usize) {
        self.pooling(threads);
        self.relu(threads);
        self.batch_norm(threads);
        self.cross_entropy(threads);
        self.sgd(threads);
    }

    fn any_wanted(&self, name: &str) -> bool {
        ["fwd", "fwd+bwd", "step"].iter().any(|op| self.wanted("W3", name, op))
    }

    /// Times an operation that moves so many bytes, if it is wanted.
    fn small_op(&self, name: &str, op: &str, threads: usize, bytes: usize, f: impl FnMut()) {
        if self.wanted("W3", name, op) {
            self.print(Row::new("W3", name, op, threads, self.time(f)).bytes(bytes));
        }
    }

    fn pooling(&self, threads: usize) {
        if !["maxpool2x2", "avgpool2x2"].iter().any(|name| self.any_wanted(name)) {
            return;
        }
        let d = Pool2dDims {
            n: 64,
            c: 64,
            h: 32,
            w: 32,
            kernel: [2, 2],
            stride: [2, 2],
            padding: [0, 0],
        };
        let len = d.n * d.c * d.h * d.w;
        let (x, dy) = (random(len, 1), random(len / 4, 2));
        let (mut y, mut codes, mut dx) = (vec![0.0; len / 4], vec![0; len / 4], random(len, 3));
        if self.any_wanted("maxpool2x2") {
            let name = "maxpool2x2";
            pool2d::max_forward(&mut y, Some(&mut codes), &x, &d);
            pool2d::max_backward(&mut dx, Write::Set, &dy, &codes, &d);
            let (want, want_codes) = reference::pool2d::max_forward(&wide(&x), &d);
            assert_close(name, &y, &want);
            assert_close(name, &dx, &reference::pool2d::max_backward(&wide(&dy), &want_codes, &d));
            self.small_op(name, "fwd", threads, 5 * len, || {
                pool2d::max_forward(&mut y, Some(&mut codes), black_box(&x), &d);
            });
            self.small_op(name, "fwd+bwd", threads, 10 * len, || {
                pool2d::max_forward(&mut y, Some(&mut codes), black_box(&x), &d);
                pool2d::max_backward(&mut dx, Write::Set, &dy, &codes, &d);
            });
        }
        if self.any_wanted("avgpool2x2") {
            let name = "avgpool2x2";
            pool2d::avg_forward(&mut y, &x, &d);
            pool2d::avg_backward(&mut dx, Write::Set, &dy, &d);
            assert_close(name, &y, &reference::pool2d::avg_forward(&wide(&x), &d));
            assert_close(name, &dx, &reference::pool2d::avg_backward(&wide(&dy), &d));
            self.small_op(name, "fwd", threads, 5 * len, || {
                pool2d::avg_forward(&mut y, black_box(&x), &d);
            });
            self.small_op(name, "fwd+bwd", threads, 10 * len, || {
                pool2d::avg_forward(&mut y, black_box(&x), &d);
                pool2d::avg_backward(&mut dx, Write::Set, &dy, &d);
            });
        }
    }

    fn relu(&self, threads: usize) {
        let name = "relu16M";
        if !self.any_wanted(name) {
            return;
        }
        let len = if self.options.test { 1 << 16 } else { 16 << 20 };
        let (x, dy) = (random(len, 1), random(len, 2));
        let (mut y, mut dx) = (random(len, 3), random(len, 4));
        elementwise::relu_forward(&mut y, &x);
        elementwise::relu_backward(&mut dx, Write::Set, &dy, &y);
        let ones = || x.iter().map(|&x| if x > 0.0 { 1.0 } else { 0.0 });
        let product = |a: &[f32]| -> Vec<f64> {
            a.iter().zip(ones()).map(|(&a, one)| f64::from(a) * one).collect()
        };
        assert_close(name, &y, &product(&x));
        assert_close(name, &dx, &product(&dy));
        self.small_op(name, "fwd", threads, 8 * len, || {
            elementwise::relu_forward(&mut y, black_box(&x));
        });
        self.small_op(name, "fwd+bwd", threads, 20 * len, || {
            elementwise::relu_forward(&mut y, black_box(&x));
            elementwise::relu_backward(&mut dx, Write::Set, &dy, &y);
        });
    }

    fn batch_norm(&self, threads: usize) {
        let name = "batchnorm";
        if !self.any_wanted(name) {
            return;
        }
        let d = NormDims { n: 64, c: 64, hw: 32 * 32 };
        let len = d.n * d.c * d.hw;
        let (x, dy, gamma, beta) = (random(len, 1), random(len, 2), random(d.c, 3), random(d.c, 4));
        let scale = Scale { gamma: &gamma, beta: &beta, eps: 1e-5 };
        let (mut y, mut dx) = (vec![0.0; len], vec![0.0; len]);
        let [mut mean, mut var, mut dgamma, mut dbeta] = [(); 4].map(|()| vec![0.0; d.c]);
        norm::batch_norm_train(&mut y, &mut mean, &mut var, &x, &scale, &d);
        let (want_mean, want_var) = reference::norm::statistics(&wide(&x), &d);
        let statistics = (&want_mean[..], &want_var[..]);
        let affine = (&wide(&gamma)[..], &wide(&beta)[..]);
        assert_close(
            name,
            &y,
            &reference::norm::batch_norm(&wide(&x), statistics, affine, 1e-5, &d),
        );
        let backward =
            |dx: &mut [f32], dgamma: &mut [f32], dbeta: &mut [f32], mean: &[f32], var: &[f32]| {
                norm::batch_norm_backward(
                    dx,
                    Write::Set,
                    dgamma,
                    dbeta,
                    &dy,
                    &x,
                    mean,
                    var,
                    &scale,
                    true,
                    &d,
                );
            };
        backward(&mut dx, &mut dgamma, &mut dbeta, &mean, &var);
        let (want, ..) = reference::norm::batch_norm_backward(
            &wide(&dy),
            &wide(&x),
            statistics,
            &wide(&gamma),
            1e-5,
            true,
            &d,
        );
        assert_close(name, &dx, &want);
        self.small_op(name, "fwd", threads, 8 * len, || {
            norm::batch_norm_train(&mut y, &mut mean, &mut var, black_box(&x), &scale, &d);
        });
        self.small_op(name, "fwd+bwd", threads, 20 * len, || {
            norm::batch_norm_train(&mut y, &mut mean, &mut var, black_box(&x), &scale, &d);
            backward(&mut dx, &mut dgamma, &mut dbeta, &mean, &var);
        });
    }

    fn cross_entropy(&self, threads: usize) {
        for classes in [10, 1000] {
            let name = format!("xent128x{classes}");
            if !self.any_wanted(&name) {
                continue;
            }
            let rows = 128;
            let logits = random(rows * classes, 1);
            let targets: Vec<usize> = (0..rows).map(|row| row * 31 % classes).collect();
            let scale = vec![1.0 / rows as f32; rows];
            let (mut losses, mut log_probs) = (vec![0.0; rows], vec![0.0; rows * classes]);
            let mut dlogits = vec![0.0; rows * classes];
            let step = |losses: &mut [f32], log_probs: &mut [f32], dlogits: &mut [f32]| {
                let logits = black_box(&logits);
                softmax::cross_entropy_forward(
                    losses, log_probs, logits, &targets, 0.0, rows, classes,
                );
                softmax::cross_entropy_backward(
                    dlogits,
                    Write::Set,
                    &scale,
                    log_probs,
                    &targets,
                    0.0,
                    rows,
                    classes,
                );
            };
            step(&mut losses, &mut log_probs, &mut dlogits);
            let (wide_logits, wide_scale) = (wide(&logits), wide(&scale));
            let want = reference::softmax::cross_entropy(&wide_logits, &targets, 0.0, classes);
            assert_close(&name, &losses, &want);
            let want = reference::softmax::cross_entropy_backward(
                &wide_scale,
                &wide_logits,
                &targets,
                0.0,
                classes,
            );
            assert_close(&name, &dlogits, &want);
            // Three passes: logits read, log-probabilities written, gradients written.
            self.small_op(&name, "fwd+bwd", threads, 12 * rows * classes, || {
                step(&mut losses, &mut log_probs, &mut dlogits);
            });
        }
    }

    fn sgd(&self, threads: usize) {
        let name = "sgd_mom_11M";
        if !self.any_wanted(name) {
            return;
        }
        let settings = SgdStep {
            lr: 1e-5,
            momentum: 0.9,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: false,
            first: false,
        };
        let (mut w, mut v, g) = (random(SGD_LEN, 1), random(SGD_LEN, 2), random(SGD_LEN, 3));
        let want: Vec<(f64, f64)> = (0..SGD_LEN)
            .step_by(997)
            .map(|i| {
                reference::sgd::step(f64::from(w[i]), f64::from(v[i]), f64::from(g[i]), &settings)
            })
            .collect();
        sgd::step(&mut w, &mut v, &g, &settings);
        for (i, (want_w, want_v)) in want.into_iter().enumerate() {
            assert_close(name, &[w[997 * i], v[997 * i]], &[want_w, want_v]);
        }
        self.small_op(name, "step", threads, 20 * SGD_LEN, || {
            sgd::step(&mut w, &mut v, black_box(&g), &settings);
        });
    }
}
