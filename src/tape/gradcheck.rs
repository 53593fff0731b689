//! Proof that an operation's backward pass is the derivative of its forward pass.
//!
//! Checking every partial derivative costs two forward passes for each input element. A random
//! direction costs two in all and still sees every element: with inputs *x*, a random upstream
//! gradient *r* and a random direction *v*,
//!
//! ```text
//! d/dt <r, f(x + t v)>  at t = 0   ==   <J(x)^T r, v>
//! ```
//!
//! The left side is a central difference over forward passes, the right side the backward pass.
//! The upstream gradient is random, never all ones: an all-ones upstream hides every error that
//! sums to zero, such as the missing centring of a softmax gradient.

use std::fmt;

use super::{Graph, Tape, Var};
use crate::params::Params;
use crate::rng::{Purpose, Stream};
use crate::tensor::Tensor;

/// How far apart the two sides may lie, relative to the scale of the terms that were summed.
const TOLERANCE: f64 = 5e-3;
/// Random directions tried, each with its own upstream gradient.
const DIRECTIONS: u64 = 8;
/// Step of the five-point difference formula, whose truncation error is of order h^4: with f32
/// rounding of about 1e-7 in the forward pass, both errors stay near 1e-5.
const STEP: f32 = 1e-2;

/// An operation whose backward pass is not the derivative of its forward pass.
#[derive(Debug, Clone, PartialEq)]
pub struct GradcheckError {
    /// Which random direction found it.
    pub direction: u64,
    /// The derivative along the direction by differences of the forward pass.
    pub numeric: f64,
    /// The same by the backward pass.
    pub analytic: f64,
    /// The magnitude of the terms summed: what the difference is measured against.
    pub scale: f64,
}

impl fmt::Display for GradcheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GradcheckError { direction, numeric, analytic, scale } = self;
        write!(
            f,
            "along direction {direction} the forward pass changes by {numeric:.6} but the \
             backward pass says {analytic:.6} (scale {scale:.3})"
        )
    }
}

impl std::error::Error for GradcheckError {}

/// Checks the gradient of `f` with respect to all `inputs`.
///
/// `f` builds the value to check from the inputs, on a recording graph; the value may have any
/// shape. Inputs should lie away from kinks (zero for ReLU) by more than a few hundredths.
///
/// # Errors
/// The first direction along which the two sides disagree.
pub fn gradcheck(
    inputs: &[Tensor],
    f: impl Fn(&mut Graph, &[Var]) -> Var,
) -> Result<(), GradcheckError> {
    gradcheck_with(&Params::new(0), inputs, f)
}

/// As [`gradcheck`], for an `f` that also reads parameters (which are held fixed).
///
/// # Errors
/// As [`gradcheck`].
pub fn gradcheck_with(
    params: &Params,
    inputs: &[Tensor],
    f: impl Fn(&mut Graph, &[Var]) -> Var,
) -> Result<(), GradcheckError> {
    let mut tape = Tape::new();
    // Every pass runs at the same step, so that dropout draws the same mask.
    let mut forward = |inputs: &[Tensor]| -> Vec<f32> {
        let mut g = Graph::new(&mut tape, params).at_step(0);
        let vars: Vec<Var> = inputs.iter().map(|input| g.leaf(input)).collect();
        let output = f(&mut g, &vars);
        g.value(output).to_vec()
    };
    let outputs = forward(inputs).len();

    for direction in 0..DIRECTIONS {
        let mut stream = Stream::new(direction, Purpose::User(0), 0, 0);
        let mut draw =
            |n: usize| -> Vec<f32> { (0..n).map(|_| stream.uniform(-1.0, 1.0)).collect() };
        let upstream = draw(outputs);
        let along: Vec<Vec<f32>> = inputs.iter().map(|input| draw(input.data().len())).collect();

        let mut projected = |t: f32| -> f64 {
            let mut moved = inputs.to_vec();
            for (input, along) in moved.iter_mut().zip(&along) {
                input.data_mut().iter_mut().zip(along).for_each(|(x, v)| *x += t * v);
            }
            dot(&forward(&moved), &upstream).0
        };
        let slope = |t: f32, plus: f64, minus: f64| (plus - minus) / (2.0 * f64::from(t));
        let near = slope(STEP, projected(STEP), projected(-STEP));
        let far = slope(2.0 * STEP, projected(2.0 * STEP), projected(-2.0 * STEP));
        let numeric = (4.0 * near - far) / 3.0;

        let mut tape = Tape::new();
        let mut g = Graph::new(&mut tape, params).at_step(0);
        let vars: Vec<Var> = inputs.iter().map(|input| g.leaf(input)).collect();
        let output = f(&mut g, &vars);
        let gradients = g.backward_with(output, &upstream);
        let (mut analytic, mut scale) = (0.0, 0.0);
        for (&var, along) in vars.iter().zip(&along) {
            if let Some(gradient) = gradients.wrt(var) {
                let (sum, magnitude) = dot(gradient, along);
                analytic += sum;
                scale += magnitude;
            }
        }
        // Root of the number of terms: how far a sum of random signs gets.
        let terms = along.iter().map(Vec::len).sum::<usize>().max(1) as f64;
        let scale = (scale / terms.sqrt()).max(analytic.abs()).max(1e-2);
        let agree = (numeric - analytic).abs() <= TOLERANCE * scale;
        // Written so that NaN on either side is a disagreement.
        if !agree {
            return Err(GradcheckError { direction, numeric, analytic, scale });
        }
    }
    Ok(())
}

/// The inner product, and the sum of the magnitudes of its terms, in `f64`.
fn dot(a: &[f32], b: &[f32]) -> (f64, f64) {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| f64::from(a) * f64::from(b))
        .fold((0.0, 0.0), |(s, m), t| (s + t, m + t.abs()))
}
