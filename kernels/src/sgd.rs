//! Stochastic gradient descent with momentum: one pass over weights, momentum and gradient.
//!
//! The pass reads three arrays and writes two, so memory decides how long it takes. There is one
//! loop with momentum and one without; threads split the weights.

use crate::{
    isa::Isa,
    par::{self, Work},
    simd::{Simd, SimdKernel},
};

/// The settings of one step, as in `torch.optim.SGD`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdStep {
    /// Learning rate.
    pub lr: f32,
    /// How much of the momentum buffer survives a step; with 0 the buffer is neither read nor
    /// written.
    pub momentum: f32,
    /// How much of the gradient is kept out of the momentum buffer, except at the first step.
    pub dampening: f32,
    /// What multiple of the weights is added to the gradient.
    pub weight_decay: f32,
    /// Whether to look ahead: step along `g + momentum * v` instead of `v`.
    pub nesterov: bool,
    /// Whether the momentum buffer holds nothing yet: it then becomes the gradient itself.
    pub first: bool,
}

/// `g = dw + weight_decay w`, `v = first ? g : momentum v + (1 - dampening) g`, and then
/// `w -= lr (nesterov ? g + momentum v : v)`; without momentum `w -= lr g`.
///
/// w `[len]`, v `[len]`, dw `[len]`; `v` may be empty if `momentum` is 0.
///
/// # Panics
/// If the lengths differ.
#[track_caller]
pub fn step(w: &mut [f32], v: &mut [f32], dw: &[f32], s: &SgdStep) {
    let len = w.len();
    assert!(dw.len() == len, "sgd: dw has {} values, w has {len}", dw.len());
    let isa = Isa::current();
    let work = Work::Weights(len);
    if s.momentum == 0.0 {
        par::split(work, len, (w, dw), |_, (w, dw)| {
            isa.dispatch(Plain { w, dw, step: s });
        });
    } else {
        assert!(v.len() == len, "sgd: v has {} values, w has {len}", v.len());
        par::split(work, len, (w, v, dw), |_, (w, v, dw)| {
            isa.dispatch(Momentum { w, v, dw, step: s });
        });
    }
}

struct Plain<'a> {
    w: &'a mut [f32],
    dw: &'a [f32],
    step: &'a SgdStep,
}

impl SimdKernel for Plain<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Plain { w, dw, step } = self;
        let whole = w.len() - w.len() % S::LANES;
        let ((w, last_w), (dw, last_dw)) = (w.split_at_mut(whole), dw.split_at(whole));
        for (w, dw) in w.chunks_exact_mut(S::LANES).zip(dw.chunks_exact(S::LANES)) {
            plain(s, w, dw, step);
        }
        plain(s, last_w, last_dw, step);
    }
}

/// One vector without momentum.
#[inline(always)]
fn plain<S: Simd>(s: S, w: &mut [f32], dw: &[f32], step: &SgdStep) {
    let old = s.read(w);
    let g = s.fma(s.splat(step.weight_decay), old, s.read(dw));
    s.write(w, s.fma(s.splat(-step.lr), g, old));
}

struct Momentum<'a> {
    w: &'a mut [f32],
    v: &'a mut [f32],
    dw: &'a [f32],
    step: &'a SgdStep,
}

impl SimdKernel for Momentum<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Momentum { w, v, dw, step } = self;
        let whole = w.len() - w.len() % S::LANES;
        let ((w, last_w), (v, last_v)) = (w.split_at_mut(whole), v.split_at_mut(whole));
        let (dw, last_dw) = dw.split_at(whole);
        let vectors = w.chunks_exact_mut(S::LANES).zip(v.chunks_exact_mut(S::LANES));
        for ((w, v), dw) in vectors.zip(dw.chunks_exact(S::LANES)) {
            with_momentum(s, w, v, dw, step);
        }
        with_momentum(s, last_w, last_v, last_dw, step);
    }
}

/// One vector with momentum.
#[inline(always)]
fn with_momentum<S: Simd>(s: S, w: &mut [f32], v: &mut [f32], dw: &[f32], step: &SgdStep) {
    let (momentum, fresh) = (s.splat(step.momentum), s.splat(1.0 - step.dampening));
    let old = s.read(w);
    let g = s.fma(s.splat(step.weight_decay), old, s.read(dw));
    let new_v = if step.first { g } else { s.fma(momentum, s.read(v), s.mul(fresh, g)) };
    let direction = if step.nesterov { s.fma(momentum, new_v, g) } else { new_v };
    s.write(v, new_v);
    s.write(w, s.fma(s.splat(-step.lr), direction, old));
}
