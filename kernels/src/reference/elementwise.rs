//! Naive twins of [`crate::elementwise`]: the functions and derivatives of one `f64`.

/// `erf(x)`: the Maclaurin series below 1.5 and Lentz's continued fraction of `erfc` above
/// (Abramowitz and Stegun, 7.1.5 and 7.1.14); good to about 1e-15.
pub fn erf(x: f64) -> f64 {
    if x.abs() < 1.5 {
        let (mut term, mut sum, mut k) = (x, x, 0.0);
        while f64::abs(term) > 1e-18 * f64::abs(sum) {
            k += 1.0;
            term *= -x * x / k;
            sum += term / (2.0 * k + 1.0);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        x.signum() * (1.0 - erfc_tail(x.abs()))
    }
}

/// `erfc(x)`, with a small *relative* error also where it is tiny.
pub fn erfc(x: f64) -> f64 {
    if x < 1.5 { 1.0 - erf(x) } else { erfc_tail(x) }
}

/// `erfc` for `x >= 1.5`: `exp(-x^2)/sqrt(pi) * 1/(x + (1/2)/(x + (2/2)/(x + (3/2)/(x + ..))))`.
fn erfc_tail(x: f64) -> f64 {
    let fraction = (1..=200).rev().fold(x, |rest, k| x + 0.5 * f64::from(k) / rest);
    if x.is_nan() { x } else { (-x * x).exp() / (fraction * std::f64::consts::PI.sqrt()) }
}

/// `max(x, 0)`, NaN stays NaN.
pub fn relu(x: f64) -> f64 {
    if x <= 0.0 { 0.0 } else { x }
}

/// `x` where positive, else `slope * x`.
pub fn leaky_relu(x: f64, slope: f64) -> f64 {
    if x > 0.0 { x } else { slope * x }
}

/// `1 / (1 + exp(-x))`.
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `x P(N(0,1) <= x)`.
pub fn gelu(x: f64) -> f64 {
    0.5 * x * erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

/// The derivative of [`gelu`]: the normal distribution plus `x` times its density.
pub fn gelu_derivative(x: f64) -> f64 {
    let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    0.5 * erfc(-x * std::f64::consts::FRAC_1_SQRT_2) + x * density
}
