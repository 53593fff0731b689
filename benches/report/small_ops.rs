//! W3: the kernels that are bound by memory rather than arithmetic. Bytes are those that must move:
//! each input read once, each output written once.

use std::hint::black_box;

use ferrotape_kernels::norm::{self, NormDims, Scale};
use ferrotape_kernels::pool2d::{self, Pool2dDims};
use ferrotape_kernels::sgd::{self, SgdStep};
use ferrotape_kernels::{Write, elementwise, reference, softmax};

use super::Report;
use super::rows::Row;
use super::workloads::{SGD_LEN, assert_close, random, wide};

/// Names and operations of all rows.
pub(super) const ROWS: [(&str, &[&str]); 7] = [
    ("maxpool2x2", &["fwd", "fwd+bwd"]),
    ("avgpool2x2", &["fwd", "fwd+bwd"]),
    ("relu16M", &["fwd", "fwd+bwd"]),
    ("batchnorm", &["fwd", "fwd+bwd"]),
    ("xent128x10", &["fwd+bwd"]),
    ("xent128x1000", &["fwd+bwd"]),
    ("sgd_mom_11M", &["step"]),
];

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
            assert_eq!(codes, want_codes, "{name}: codes");
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
        let mut data = BatchNorm::new(d);
        data.forward();
        data.backward();
        data.check(name);
        self.small_op(name, "fwd", threads, 8 * len, || data.forward());
        self.small_op(name, "fwd+bwd", threads, 20 * len, || {
            data.forward();
            data.backward();
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
            lr: 0.01,
            momentum: 0.9,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: false,
            first: false,
        };
        let (mut w, mut v, g) = (random(SGD_LEN, 1), random(SGD_LEN, 2), random(SGD_LEN, 3));
        let naive = |i: usize| {
            let [w, v, g] = [&w, &v, &g].map(|x| f64::from(x[i]));
            reference::sgd::step(w, v, g, &settings)
        };
        let (want_w, want_v): (Vec<_>, Vec<_>) = (0..SGD_LEN).map(naive).unzip();
        sgd::step(&mut w, &mut v, &g, &settings);
        assert_close(name, &w, &want_w);
        assert_close(name, &v, &want_v);
        drop((want_w, want_v));
        self.small_op(name, "step", threads, 20 * SGD_LEN, || {
            sgd::step(&mut w, &mut v, black_box(&g), &settings);
        });
    }
}

/// Batch normalisation in training, as a layer does it: its operands, and all that it writes.
struct BatchNorm {
    d: NormDims,
    x: Vec<f32>,
    dy: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    y: Vec<f32>,
    mean: Vec<f32>,
    var: Vec<f32>,
    running_mean: Vec<f32>,
    running_var: Vec<f32>,
    dx: Vec<f32>,
    dgamma: Vec<f32>,
    dbeta: Vec<f32>,
}

impl BatchNorm {
    const EPS: f32 = 1e-5;
    /// The share of a batch in the running statistics, which begin with mean 0 and variance 1.
    const MOMENTUM: f32 = 0.1;

    fn new(d: NormDims) -> Self {
        let len = d.n * d.c * d.hw;
        BatchNorm {
            d,
            x: random(len, 1),
            dy: random(len, 2),
            gamma: random(d.c, 3),
            beta: random(d.c, 4),
            y: vec![0.0; len],
            mean: vec![0.0; d.c],
            var: vec![0.0; d.c],
            running_mean: vec![0.0; d.c],
            running_var: vec![1.0; d.c],
            dx: vec![0.0; len],
            dgamma: vec![0.0; d.c],
            dbeta: vec![0.0; d.c],
        }
    }

    fn forward(&mut self) {
        let BatchNorm { d, x, gamma, beta, y, mean, var, running_mean, running_var, .. } = self;
        let scale = Scale { gamma, beta, eps: Self::EPS };
        norm::batch_norm_train(y, mean, var, black_box(x), &scale, d);
        norm::update_running(running_mean, running_var, mean, var, Self::MOMENTUM, d.n * d.hw);
    }

    fn backward(&mut self) {
        let BatchNorm { d, x, dy, gamma, beta, mean, var, dx, dgamma, dbeta, .. } = self;
        let (scale, set) = (Scale { gamma, beta, eps: Self::EPS }, Write::Set);
        norm::batch_norm_backward(dx, set, dgamma, dbeta, dy, x, mean, var, &scale, true, d);
    }

    /// Compares all that the first pass in each direction has written with the naive twin.
    fn check(&self, name: &str) {
        let d = &self.d;
        let [x, dy, gamma, beta] =
            [&self.x, &self.dy, &self.gamma, &self.beta].map(|values| wide(values));
        let eps = f64::from(Self::EPS);

        let (mean, var) = reference::norm::statistics(&x, d);
        let statistics = (&mean[..], &var[..]);
        let y = reference::norm::batch_norm(&x, statistics, (&gamma, &beta), eps, d);
        assert_close(&format!("{name} y"), &self.y, &y);
        assert_close(&format!("{name} mean"), &self.mean, &mean);
        assert_close(&format!("{name} var"), &self.var, &var);

        let (momentum, count) = (f64::from(Self::MOMENTUM), (d.n * d.hw) as f64);
        let blend = |begin: f64, batch: f64| (1.0 - momentum) * begin + momentum * batch;
        let running_mean: Vec<_> = mean.iter().map(|&mean| blend(0.0, mean)).collect();
        let unbiased = var.iter().map(|var| var * count / (count - 1.0));
        let running_var: Vec<_> = unbiased.map(|var| blend(1.0, var)).collect();
        assert_close(&format!("{name} running mean"), &self.running_mean, &running_mean);
        assert_close(&format!("{name} running variance"), &self.running_var, &running_var);

        let (dx, dgamma, dbeta) =
            reference::norm::batch_norm_backward(&dy, &x, statistics, &gamma, eps, true, d);
        assert_close(&format!("{name} dx"), &self.dx, &dx);
        assert_close(&format!("{name} dgamma"), &self.dgamma, &dgamma);
        assert_close(&format!("{name} dbeta"), &self.dbeta, &dbeta);
    }
}
