//! Clipping: bounding a gradient before it is applied, so that one steep place does not throw the
//! weights far away (Pascanu et al., "On the difficulty of training recurrent neural networks",
//! 2013).
//!
//! Both act on the flat gradient of the whole model. Like every kernel they give the same bits
//! for any number of threads.
//!
//! ```text
//! by norm    g = g * min(1, max_norm / (|g| + 1e-6))     keeps the direction
//! by value   g = max(-limit, min(g, limit))              keeps no direction, but every sign
//! ```

use ferrotape_kernels::par::{self, Work};
use ferrotape_kernels::reduce;

use crate::tape::Gradients;

/// The Euclidean norm of the gradient of all parameters together. It is finite exactly if every
/// element is finite and below about `1e19`.
pub fn grad_norm(gradients: &Gradients<'_>) -> f64 {
    reduce::sum_squares(gradients.flat()).sqrt()
}

/// Scales the gradient of all parameters down to the norm `max_norm` if it is longer, and returns
/// the norm that it had. A norm that is not finite is returned and changes nothing.
///
/// # Panics
/// If `max_norm` is not positive.
#[track_caller]
pub fn clip_grad_norm(gradients: &mut Gradients<'_>, max_norm: f32) -> f64 {
    assert!(max_norm > 0.0, "clip_grad_norm: the norm {max_norm} is not positive");
    let norm = grad_norm(gradients);
    let scale = (f64::from(max_norm) / (norm + 1e-6)) as f32;
    if norm.is_finite() && scale < 1.0 {
        for_each(gradients, |g| g * scale);
    }
    norm
}

/// Limits every element of the gradient to `[-limit, limit]`.
///
/// # Panics
/// If `limit` is not positive.
#[track_caller]
pub fn clip_grad_value(gradients: &mut Gradients<'_>, limit: f32) {
    assert!(limit > 0.0, "clip_grad_value: the limit {limit} is not positive");
    for_each(gradients, |g| g.clamp(-limit, limit));
}

fn for_each(gradients: &mut Gradients<'_>, f: impl Fn(f32) -> f32 + Sync) {
    let flat = gradients.flat_mut();
    par::split(Work::Elements(flat.len()), flat.len(), flat, |_, flat| {
        flat.iter_mut().for_each(|g| *g = f(*g));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Graph, Init, Params, Tape, Tensor};

    /// Calls `f` with the gradient `[3, 0, -4]`, whose norm is 5, in units of `unit`.
    fn with_gradient(unit: f32, f: impl FnOnce(&mut Gradients<'_>)) {
        let mut params = Params::new(0);
        let w = params.add("w", [3], Init::Zeros);
        let direction = Tensor::from_vec([3.0, 0.0, -4.0].map(|g| g * unit).to_vec(), [3]);
        let mut tape = Tape::new();
        let mut g = Graph::new(&mut tape, &params);
        let (w, direction) = (g.param(w), g.input(&direction));
        let product = g.mul(w, direction);
        let loss = g.sum(product);
        f(&mut g.backward(loss));
    }

    #[test]
    fn the_norm_is_clipped_only_from_above() {
        // torch.nn.utils.clip_grad_norm_ gives the same.
        with_gradient(1.0, |gradients| {
            assert_eq!(clip_grad_norm(gradients, 1.0), 5.0);
            assert_eq!(gradients.flat()[..3], [0.599_999_9, 0.0, -0.799_999_83]);
        });
        with_gradient(1.0, |gradients| {
            assert_eq!(clip_grad_norm(gradients, 6.0), 5.0);
            assert_eq!(gradients.flat()[..3], [3.0, 0.0, -4.0]);
        });
    }

    #[test]
    fn values_are_clipped_one_by_one() {
        with_gradient(1.0, |gradients| {
            clip_grad_value(gradients, 3.5);
            assert_eq!(gradients.flat()[..3], [3.0, 0.0, -3.5]);
        });
    }

    #[test]
    fn what_is_not_finite_is_reported_and_left_alone() {
        for unit in [f32::NAN, f32::INFINITY] {
            with_gradient(unit, |gradients| {
                assert!(!clip_grad_norm(gradients, 1.0).is_finite());
                assert!(!gradients.flat()[0].is_finite());
            });
        }
    }
}
