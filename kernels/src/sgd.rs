//! Stochastic gradient descent with momentum: one pass over weights, momentum and gradient.
//!
//! The pass reads three arrays and writes two, so memory decides how long it takes.

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
    /// How much of the momentum buffer survives a step; with 0 the buffer is neither read nor written.
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
    if s.momentum == 0.0 {
        par::split(Work::Elements(2 * len), len, (w, dw), |_, (w, dw)| {
            isa.dispatch(Plain { w, dw, step: s });
        });
    } else {
        assert!(v.len() == len, "sgd: v has {} values, w has {len}", v.len());
        par::split(Work::Elements(3 * len), len, (w, v, dw), |_, (w, v, dw)| {
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
        let (minus_lr, decay) = (s.splat(-self.step.lr), s.splat(self.step.weight_decay));
        for (w, dw) in self.w.chunks_mut(S::LANES).zip(self.dw.chunks(S::LANES)) {
            let old = s.read(w);
            let g = s.fma(decay, old, s.read(dw));
            s.write(w, s.fma(minus_lr, g, old));
        }
    }
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
        let (minus_lr, decay) = (s.splat(-step.lr), s.splat(step.weight_decay));
        let (momentum, fresh) = (s.splat(step.momentum), s.splat(1.0 - step.dampening));
        let vectors = w.chunks_mut(S::LANES).zip(v.chunks_mut(S::LANES)).zip(dw.chunks(S::LANES));
        for ((w, v), dw) in vectors {
            let old = s.read(w);
            let g = s.fma(decay, old, s.read(dw));
            let new_v = if step.first { g } else { s.fma(momentum, s.read(v), s.mul(fresh, g)) };
            let direction = if step.nesterov { s.fma(momentum, new_v, g) } else { new_v };
            s.write(v, new_v);
            s.write(w, s.fma(minus_lr, direction, old));
        }
    }
}
