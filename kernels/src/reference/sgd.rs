//! The naive twin of [`crate::sgd`]: PyTorch's documented algorithm, line by line, for one weight.

use crate::sgd::SgdStep;

/// Returns the new weight and momentum buffer.
pub fn step(w: f64, v: f64, dw: f64, s: &SgdStep) -> (f64, f64) {
    let mut g = dw + f64::from(s.weight_decay) * w;
    let (momentum, mut v) = (f64::from(s.momentum), v);
    if momentum != 0.0 {
        v = if s.first { g } else { momentum * v + (1.0 - f64::from(s.dampening)) * g };
        g = if s.nesterov { g + momentum * v } else { v };
    }
    (w - f64::from(s.lr) * g, v)
}
