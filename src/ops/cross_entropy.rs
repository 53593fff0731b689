//! Cross-entropy between class scores and labels, fused with log-softmax.
//!
//! For one example with scores `x`, let `p = softmax(x)`. Label smoothing `s` (Szegedy et al.,
//! 2016) aims at `q[j] = (1 - s) * [j = target] + s / c`; without it `q` is one-hot. The loss is
//!
//! ```text
//! loss = -sum over j of q[j] * ln p[j]
//! ```
//!
//! `ln p` is a log-softmax, so it is exact where `p` underflows. Since `q` sums to 1, the gradient
//! of the two together is far simpler than that of each alone:
//!
//! ```text
//! d loss / d x[j] = p[j] - q[j]
//! ```
//!
//! `Reduction::Mean` divides by the number of examples `n`, so each one's `dloss` is `dy / n`.

use ferrotape_kernels::{reduce, scratch, softmax};

use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

/// How the losses of the examples of a batch become the result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reduction {
    /// Their mean, a scalar.
    #[default]
    Mean,
    /// Their sum, a scalar.
    Sum,
    /// Not at all: one loss per example.
    None,
}

/// Variants of [`Graph::cross_entropy`].
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct CrossEntropyOptions {
    /// The probability, in `[0, 1]`, that is taken from the target and spread evenly over all
    /// classes.
    pub label_smoothing: f32,
    /// How the losses are put together.
    pub reduction: Reduction,
}

impl Graph<'_, '_> {
    /// The mean cross-entropy between `logits` `[n, c]` (scores before softmax) and the `n`
    /// classes `targets`: a scalar.
    ///
    /// # Panics
    /// If there is not one target below `c` for each row.
    #[track_caller]
    pub fn cross_entropy(&mut self, logits: Var, targets: &[usize]) -> Var {
        self.cross_entropy_with(logits, targets, CrossEntropyOptions::default())
    }

    /// As [`Graph::cross_entropy`], with label smoothing or another reduction: a scalar, or `[n]`
    /// for [`Reduction::None`].
    ///
    /// # Panics
    /// If there is not one target below `c` for each row, or the smoothing is not in `[0, 1]`.
    #[track_caller]
    pub fn cross_entropy_with(
        &mut self,
        logits: Var,
        targets: &[usize],
        options: CrossEntropyOptions,
    ) -> Var {
        let classes = self.shape(logits).last().copied().unwrap_or(0);
        let stray = targets.iter().position(|&target| target >= classes);
        let op = CrossEntropy {
            options,
            examples: targets.len(),
            stray: stray.map(|index| (index, targets[index])),
        };
        self.apply_with(op, &[logits], |saved| {
            saved.indices.clear();
            saved.indices.extend_from_slice(targets);
        })
    }
}

struct CrossEntropy {
    options: CrossEntropyOptions,
    examples: usize,
    /// The first target that is not a class: its position and value.
    stray: Option<(usize, usize)>,
}

impl Op for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let CrossEntropyOptions { label_smoothing, reduction } = self.options;
        let [n, c] = *inputs[0] else {
            return Err("expected logits [examples, classes]".into());
        };
        if n != self.examples {
            return Err(format!("{} targets for {n} rows of logits", self.examples));
        }
        if let Some((index, target)) = self.stray {
            return Err(format!("target {target} at index {index} is not below the {c} classes"));
        }
        if !(0.0..=1.0).contains(&label_smoothing) {
            return Err(format!("label smoothing {label_smoothing} is not in 0..=1"));
        }
        match reduction {
            Reduction::None => Ok([n].into()),
            Reduction::Mean if n == 0 => Err("there is no mean over no examples".into()),
            Reduction::Mean | Reduction::Sum => Ok(Shape::default()),
        }
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        let CrossEntropyOptions { label_smoothing, reduction } = self.options;
        let [n, c] = *ctx.inputs.shape(0) else { unreachable!("the shape was checked") };
        let (logits, targets) = (ctx.inputs.data(0), &ctx.saved.indices);
        let log_probs = &mut ctx.saved.floats;
        log_probs.resize(n * c, 0.0);
        let mut losses = |losses: &mut [f32]| {
            let smoothing = label_smoothing;
            softmax::cross_entropy_forward(losses, log_probs, logits, targets, smoothing, n, c);
        };
        match reduction {
            Reduction::None => losses(ctx.output),
            Reduction::Sum | Reduction::Mean => scratch::with(n, |each| {
                losses(each);
                ctx.output[0] = reduce::sum(each) * self.weight(n);
            }),
        }
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        let CrossEntropyOptions { label_smoothing: smoothing, reduction } = self.options;
        let [n, c] = *ctx.inputs.shape(0) else { unreachable!("the shape was checked") };
        let (log_probs, targets) = (&ctx.saved.floats, &ctx.saved.indices);
        let Some((dx, write)) = ctx.grads.wrt(0) else { return };
        let mut backward = |d_losses: &[f32]| {
            softmax::cross_entropy_backward(
                dx, write, d_losses, log_probs, targets, smoothing, n, c,
            );
        };
        match reduction {
            Reduction::None => backward(ctx.d_output),
            Reduction::Sum | Reduction::Mean => scratch::with(n, |d_losses| {
                d_losses.fill(ctx.d_output[0] * self.weight(n));
                backward(d_losses);
            }),
        }
    }
}

impl CrossEntropy {
    /// The factor of each of `n` losses in the result.
    fn weight(&self, n: usize) -> f32 {
        match self.options.reduction {
            Reduction::Mean => 1.0 / n as f32,
            Reduction::Sum | Reduction::None => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CrossEntropyOptions, Reduction};
    use crate::ops::testing::{between, shape_error};
    use crate::tape::{Graph, Tape, gradcheck};
    use crate::{Params, Tensor};

    #[test]
    fn gradient() {
        let logits = [between(-2.0, 2.0, 1, [4, 5])];
        for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
            for label_smoothing in [0.0, 0.1, 1.0] {
                let options = CrossEntropyOptions { label_smoothing, reduction };
                gradcheck(&logits, |g, x| g.cross_entropy_with(x[0], &[4, 0, 2, 2], options))
                    .unwrap();
            }
        }
    }

    #[test]
    fn hopeless_and_impossible_scores_stay_finite() {
        let (mut tape, params) = (Tape::new(), Params::new(0));
        // The second row's other classes are masked out.
        let masked = f32::NEG_INFINITY;
        let logits = Tensor::from_vec(vec![1e4, -1e4, 0.0, 3.0, masked, masked], [2, 3]);
        let mut g = Graph::new(&mut tape, &params);
        let x = g.leaf(&logits);
        let options = CrossEntropyOptions { reduction: Reduction::None, ..Default::default() };
        let losses = g.cross_entropy_with(x, &[1, 0], options);
        assert_eq!(g.value(losses), [2e4, 0.0]);
        let gradients = g.backward_with(losses, &[1.0, 1.0]);
        assert_eq!(gradients.wrt(x), Some(&[1.0, -1.0, 0.0, 0.0, 0.0, 0.0][..]));
    }

    #[test]
    fn shape_errors_say_what_was_expected() {
        let error = |shape: &[usize], targets: &[usize], label_smoothing| {
            let options = CrossEntropyOptions { label_smoothing, ..Default::default() };
            shape_error(&[shape], |g, x| g.cross_entropy_with(x[0], targets, options))
        };
        assert_eq!(
            error(&[3, 10], &[9, 10, 11], 0.0),
            "cross_entropy: target 10 at index 1 is not below the 10 classes (operands: [3, 10])"
        );
        assert!(error(&[3, 10], &[1, 2], 0.0).contains("2 targets for 3 rows of logits"));
        assert!(error(&[10], &[1], 0.0).contains("expected logits [examples, classes]"));
        assert!(error(&[0, 10], &[], 0.0).contains("no mean over no examples"));
        assert!(error(&[1, 10], &[1], 1.5).contains("label smoothing 1.5 is not in 0..=1"));
        assert!(error(&[1, 10], &[1], f32::NAN).contains("label smoothing NaN"));
    }
}
