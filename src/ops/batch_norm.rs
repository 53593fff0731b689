//! Batch normalisation: every channel is brought to mean 0 and variance 1 over the batch, then
//! scaled and shifted by learnt amounts (Ioffe & Szegedy, 2015).
//!
//! ```text
//! u = (x - mean) / sqrt(var + eps)        y = gamma u + beta
//! ```
//!
//! where `mean` and `var` are those of the channel's `m` elements, over all images and places. They
//! depend on `x` too; carried through, the chain rule gives
//!
//! ```text
//! dbeta = sum dy        dgamma = sum dy u
//! dx = gamma / sqrt(var + eps) * (dy - (dbeta + u dgamma) / m)
//! ```
//!
//! In evaluation an image must not depend on the others in its batch, so running averages take the
//! place of `mean` and `var`: buffers of the model that follow the batches when a step is applied.

use ferrotape_kernels::norm::{self, NormDims, Scale};
use ferrotape_kernels::{Write, scratch};

use crate::params::{ParamId, Params};
use crate::tape::{BackwardCtx, ForwardCtx, Graph, Mode, Op, Saved, Var};
use crate::tensor::Shape;

/// Settings of [`Graph::batch_norm`]. The defaults are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNormOptions {
    /// The buffers of the running mean and variance, each `[c]`. Without them the statistics of
    /// the batch are used in evaluation too.
    pub running: Option<[ParamId; 2]>,
    /// How far a step moves the running statistics towards those of the batch.
    pub momentum: f32,
    /// Added to the variance, so that a constant channel is not divided by zero.
    pub eps: f32,
}

impl Default for BatchNormOptions {
    fn default() -> Self {
        BatchNormOptions { running: None, momentum: 0.1, eps: 1e-5 }
    }
}

impl Graph<'_, '_> {
    /// Normalises each channel of `x` `[n, c, ..]`; `gamma` and `beta` are `[c]`. Uses the batch's
    /// own statistics in training and the running ones in evaluation.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn batch_norm(&mut self, x: Var, gamma: Var, beta: Var, options: BatchNormOptions) -> Var {
        if let (Mode::Eval, Some([mean, var])) = (self.mode(), options.running) {
            let [mean, var] = [self.param(mean), self.param(var)];
            return self.apply(BatchNorm { options, count: 0 }, &[x, gamma, beta, mean, var]);
        }
        let shape = self.shape(x);
        let count = shape.numel() / shape.get(1).copied().unwrap_or(1).max(1);
        self.apply(BatchNorm { options, count }, &[x, gamma, beta])
    }
}

/// With the operands `x, gamma, beta` it uses the batch's statistics, with `mean, var` after them
/// those.
struct BatchNorm {
    options: BatchNormOptions,
    /// Elements of a channel.
    count: usize,
}

/// The kernel's view: all dimensions after the channel are one.
fn dims(x: Shape) -> NormDims {
    NormDims { n: x[0], c: x[1], hw: x[2..].iter().product() }
}

impl BatchNorm {
    fn scale<'a>(&self, gamma: &'a [f32], beta: &'a [f32]) -> Scale<'a> {
        Scale { gamma, beta, eps: self.options.eps }
    }
}

impl Op for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let &[n, c, ..] = &*inputs[0] else {
            return Err("expected an input [images, channels, ..]".into());
        };
        if inputs[1..].iter().any(|channels| **channels != [c]) {
            return Err(format!("expected shape [{c}] for all that is per channel"));
        }
        if n == 0 {
            return Err("there are no statistics of no images".into());
        }
        Ok(inputs[0])
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        let dims = dims(ctx.inputs.shape(0));
        let [x, gamma, beta] = [0, 1, 2].map(|k| ctx.inputs.data(k));
        let scale = self.scale(gamma, beta);
        if ctx.inputs.len() == 5 {
            let [mean, var] = [3, 4].map(|k| ctx.inputs.data(k));
            return norm::batch_norm_eval(ctx.output, x, mean, var, &scale, &dims);
        }
        ctx.saved.floats.resize(2 * dims.c, 0.0);
        let (mean, var) = ctx.saved.floats.split_at_mut(dims.c);
        norm::batch_norm_train(ctx.output, mean, var, x, &scale, &dims);
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        let dims = dims(ctx.inputs.shape(0));
        let [x, gamma, beta] = [0, 1, 2].map(|k| ctx.inputs.data(k));
        let scale = self.scale(gamma, beta);
        let (mean, var) = ctx.saved.floats.split_at(dims.c);
        let dy = ctx.d_output;
        scratch::with(2 * dims.c, |sums| {
            let (dgamma, dbeta) = sums.split_at_mut(dims.c);
            let mut backward = |dx: &mut [f32], write| {
                norm::batch_norm_backward(
                    dx, write, dgamma, dbeta, dy, x, mean, var, &scale, true, &dims,
                );
            };
            match ctx.grads.wrt(0) {
                Some((dx, write)) => backward(dx, write),
                None => scratch::with(x.len(), |dx| backward(dx, Write::Set)),
            }
            ctx.grads.add_to(1, |i| dgamma[i]);
            ctx.grads.add_to(2, |i| dbeta[i]);
        });
    }

    fn update_buffers(&self, saved: &Saved, params: &mut Params) {
        let Some([running_mean, running_var]) = self.options.running else { return };
        let (mean, var) = saved.floats.split_at(saved.floats.len() / 2);
        let [running_mean, running_var] = params.buffers_mut([running_mean, running_var]);
        let BatchNorm { options, count } = *self;
        norm::update_running(running_mean, running_var, mean, var, options.momentum, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{shape_error, uniform};
    use crate::params::Init;
    use crate::tape::{Tape, gradcheck};
    use crate::tensor::Tensor;

    #[test]
    fn gradient() {
        for x in [&[6, 3][..], &[4, 3, 5], &[2, 3, 4, 5]] {
            let inputs = [uniform(1, x), uniform(2, [3]), uniform(3, [3])];
            gradcheck(&inputs, |g, v| g.batch_norm(v[0], v[1], v[2], BatchNormOptions::default()))
                .unwrap();
            // The input used otherwise, too; and no gradient wanted for it.
            gradcheck(&inputs, |g, v| {
                let y = g.batch_norm(v[0], v[1], v[2], BatchNormOptions::default());
                g.mul(v[0], y)
            })
            .unwrap();
            gradcheck(&inputs[1..], |g, v| {
                let x = g.constant(uniform(1, x));
                g.batch_norm(x, v[0], v[1], BatchNormOptions::default())
            })
            .unwrap();
        }
    }

    #[test]
    fn running_statistics_follow_the_batches_and_serve_in_evaluation() {
        let mut params = Params::new(0);
        let running = [
            params.add_buffer("running_mean", [2], Init::Zeros),
            params.add_buffer("running_var", [2], Init::Ones),
        ];
        let gamma = params.add("weight", [2], Init::Constant(0.5));
        let beta = params.add("bias", [2], Init::Constant(-1.0));
        let options = BatchNormOptions { running: Some(running), ..Default::default() };
        let mut tape = Tape::new();
        for batch in 0..3 {
            let values = (0..16).map(|i| ((7 * i + 3 * batch) % 11) as f32 - 4.0);
            let images = Tensor::from_vec(values.collect(), [2, 2, 2, 2]);
            let mut g = Graph::new(&mut tape, &params);
            let (x, gamma, beta) = (g.input(&images), g.param(gamma), g.param(beta));
            let y = g.batch_norm(x, gamma, beta, options);
            let loss = g.sum(y);
            g.backward(loss).update_buffers(&mut params);
        }
        // torch.nn.functional.batch_norm, the same three batches.
        let close = |a: &[f32], b: [f32; 2]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(close(params.get(running[0]), [0.243875, 0.3395]), "{:?}", params.get(running[0]));
        assert!(
            close(params.get(running[1]), [3.560_660_7, 3.488_571_4]),
            "{:?}",
            params.get(running[1])
        );

        let image = Tensor::from_vec(vec![1.0, -2.0], [1, 2, 1, 1]);
        let before = params.clone();
        let mut g = Graph::eval(&mut tape, &params);
        let (x, gamma, beta) = (g.input(&image), g.param(gamma), g.param(beta));
        let y = g.batch_norm(x, gamma, beta, options);
        assert!(close(g.value(y), [-0.799_646_14, -1.626_280_1]), "{:?}", g.value(y));
        assert_eq!(params, before);
    }

    #[test]
    fn shape_errors_say_what_was_expected() {
        let error = |shapes: &[&[usize]]| {
            shape_error(shapes, |g, v| g.batch_norm(v[0], v[1], v[2], BatchNormOptions::default()))
        };
        assert_eq!(
            error(&[&[2, 3, 4, 4], &[3], &[4]]),
            "batch_norm: expected shape [3] for all that is per channel \
             (operands: [2, 3, 4, 4], [3], [4])"
        );
        assert!(error(&[&[3], &[3], &[3]]).contains("expected an input [images, channels, ..]"));
        assert!(error(&[&[0, 3], &[3], &[3]]).contains("no statistics of no images"));
    }
}
