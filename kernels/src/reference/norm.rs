//! Naive twins of [`crate::norm`], straight from the formulas of Ioffe and Szegedy (2015).

use crate::norm::NormDims;

/// Calls `f(channel, index)` for every element of `[n, c, hw]`.
fn for_each_element(d: &NormDims, mut f: impl FnMut(usize, usize)) {
    for index in 0..d.n * d.c * d.hw {
        f(index / d.hw % d.c, index);
    }
}

/// Each channel's mean and biased variance.
pub fn statistics(x: &[f64], d: &NormDims) -> (Vec<f64>, Vec<f64>) {
    let count = (d.n * d.hw) as f64;
    let (mut mean, mut var) = (vec![0.0; d.c], vec![0.0; d.c]);
    for_each_element(d, |c, i| mean[c] += x[i] / count);
    for_each_element(d, |c, i| var[c] += (x[i] - mean[c]).powi(2) / count);
    (mean, var)
}

/// `y = gamma * (x - mean) / sqrt(var + eps) + beta`.
pub fn batch_norm(
    x: &[f64],
    (mean, var): (&[f64], &[f64]),
    (gamma, beta): (&[f64], &[f64]),
    eps: f64,
    d: &NormDims,
) -> Vec<f64> {
    let mut y = vec![0.0; x.len()];
    for_each_element(d, |c, i| {
        y[i] = gamma[c] * (x[i] - mean[c]) / (var[c] + eps).sqrt() + beta[c];
    });
    y
}

/// The gradients `(dx, dgamma, dbeta)`; with `training`, the statistics depend on `x` too.
pub fn batch_norm_backward(
    dy: &[f64],
    x: &[f64],
    (mean, var): (&[f64], &[f64]),
    gamma: &[f64],
    eps: f64,
    training: bool,
    d: &NormDims,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let count = (d.n * d.hw) as f64;
    let normal = |c: usize, i: usize| (x[i] - mean[c]) / (var[c] + eps).sqrt();
    let (mut dx, mut dgamma, mut dbeta) = (vec![0.0; x.len()], vec![0.0; d.c], vec![0.0; d.c]);
    for_each_element(d, |c, i| {
        dgamma[c] += dy[i] * normal(c, i);
        dbeta[c] += dy[i];
    });
    for_each_element(d, |c, i| {
        let through = if training { dbeta[c] + normal(c, i) * dgamma[c] } else { 0.0 };
        dx[i] = gamma[c] / (var[c] + eps).sqrt() * (dy[i] - through / count);
    });
    (dx, dgamma, dbeta)
}
