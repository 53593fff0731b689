//! Functions of each element: activations, arithmetic, and their derivatives.
//!
//! There is one loop, [`map`], over any number of inputs of the same length; each kernel is a
//! [`Function`] of vectors put into it. All shapes are `[len]`. A backward pass takes what is
//! cheapest to differentiate from, `y` where it suffices (so `x` need not be kept), else `x`.
//!
//! Threads split the elements. Outputs too large for any cache are written past them.

use crate::{
    Write,
    isa::Isa,
    math,
    par::{self, Work},
    simd::{Simd, SimdKernel},
    tuning::elementwise::STREAM_FROM,
};

/// A function of `N` numbers, for vectors.
pub(crate) trait Function<const N: usize>: Copy + Sync {
    /// Implementors mark it `#[inline(always)]`.
    fn eval<S: Simd>(self, s: S, x: [S::F32; N]) -> S::F32;
}

/// `y[i] = f(x[0][i], x[1][i], ..)`.
#[track_caller]
fn map<const N: usize>(op: &str, y: &mut [f32], write: Write, x: [&[f32]; N], f: impl Function<N>) {
    let lens = x.map(<[f32]>::len);
    assert!(
        lens.iter().all(|&len| len == y.len()),
        "{op}: inputs of {lens:?} values for an output of {}; all must be equal",
        y.len()
    );
    let isa = Isa::current();
    let stream = y.len() >= STREAM_FROM;
    par::split(Work::Elements((N + 1) * y.len()), y.len(), (y, x), |_, (y, x)| {
        isa.dispatch(Map { y, write, x, f, stream });
    });
}

struct Map<'a, F, const N: usize> {
    y: &'a mut [f32],
    write: Write,
    x: [&'a [f32]; N],
    f: F,
    /// Whether the whole output is too large for the caches.
    stream: bool,
}

impl<F: Function<N>, const N: usize> SimdKernel for Map<'_, F, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Map { y, write, x, f, stream } = self;
        if stream && write == Write::Set {
            return past_the_caches(s, y, x, f);
        }
        let whole = y.len() - y.len() % S::LANES;
        for i in (0..whole).step_by(S::LANES) {
            let range = i..i + S::LANES;
            step(s, &mut y[range.clone()], write, x.map(|x| &x[range.clone()]), f);
        }
        if whole < y.len() {
            step(s, &mut y[whole..], write, x.map(|x| &x[whole..]), f);
        }
    }
}

/// [`Map`] for a large output. A plain store first fetches the line that it overwrites, which is a
/// third of the traffic of `y = f(x)`; these don't.
#[inline(always)]
fn past_the_caches<S: Simd, const N: usize>(
    s: S,
    y: &mut [f32],
    x: [&[f32]; N],
    f: impl Function<N>,
) {
    let head = y.as_ptr().align_offset(size_of::<S::F32>()).min(y.len());
    let whole = (y.len() - head) / S::LANES * S::LANES;
    for i in (0..head).step_by(S::LANES) {
        step(s, &mut y[i..head], Write::Set, x.map(|x| &x[i..head]), f);
    }
    for i in (head..head + whole).step_by(S::LANES) {
        let range = i..i + S::LANES;
        let value = eval(s, x.map(|x| &x[range.clone()]), f);
        // SAFETY: a range of LANES floats, whole vectors after the aligned head.
        unsafe { s.stream(y[range].as_mut_ptr(), value) };
    }
    s.fence();
    let last = head + whole;
    step(s, &mut y[last..], Write::Set, x.map(|x| &x[last..]), f);
}

/// One vector of [`Map`]. A function and not a closure: see [`crate::simd`].
#[inline(always)]
fn step<S: Simd, const N: usize>(
    s: S,
    y: &mut [f32],
    write: Write,
    x: [&[f32]; N],
    f: impl Function<N>,
) {
    let mut value = eval(s, x, f);
    if write == Write::Add {
        value = s.add(s.read(y), value);
    }
    s.write(y, value);
}

/// `f` of the vectors at the start of `x`.
#[inline(always)]
fn eval<S: Simd, const N: usize>(s: S, x: [&[f32]; N], f: impl Function<N>) -> S::F32 {
    let mut values = [s.zero(); N];
    for (value, x) in values.iter_mut().zip(x) {
        *value = s.read(x);
    }
    f.eval(s, values)
}

/// Names a [`Function`] of so many inputs: `function!(Name<inputs> { parameters } |s, [x, ..]|
/// value)`.
macro_rules! function {
    ($name:ident<$n:literal> { $($parameter:ident),* } |$s:ident, $x:pat_param| $value:expr) => {
        #[derive(Clone, Copy)]
        struct $name { $($parameter: f32),* }

        impl Function<$n> for $name {
            #[inline(always)]
            fn eval<S: Simd>(self, $s: S, $x: [S::F32; $n]) -> S::F32 {
                $(let $parameter = $s.splat(self.$parameter);)*
                $value
            }
        }
    };
}

pub(crate) use function;

// Rectifiers. `max(0, x)` returns its second argument if that is NaN.
function!(Relu<1> {} |s, [x]| s.max(s.zero(), x));
// `max(0, y) == y` would also be true of a positive y; `max(0, y) == 0` is false of NaN.
function!(ReluBackward<2> {} |s, [dy, y]| s.select(s.eq(s.max(s.zero(), y), s.zero()), s.zero(), dy));
function!(LeakyRelu<1> { slope } |s, [x]| s.select(s.gt(x, s.zero()), x, s.mul(slope, x)));
function!(LeakyReluBackward<2> { slope } |s, [dy, y]| s.select(s.gt(y, s.zero()), dy, s.mul(slope, dy)));

// Smooth functions.
function!(Gelu<1> {} |s, [x]| s.mul(x, math::normal(s, x).0));
function!(GeluBackward<2> {} |s, [dy, x]| {
    let (distribution, density) = math::normal(s, x);
    s.mul(dy, s.fma(x, density, distribution))
});
function!(Sigmoid<1> {} |s, [x]| math::sigmoid(s, x));
function!(SigmoidBackward<2> {} |s, [dy, y]| s.mul(s.mul(dy, y), s.sub(s.splat(1.0), y)));
function!(Tanh<1> {} |s, [x]| math::tanh(s, x));
function!(TanhBackward<2> {} |s, [dy, y]| s.mul(dy, s.sub(s.splat(1.0), s.mul(y, y))));
function!(Exp<1> {} |s, [x]| math::exp(s, x));
function!(Log<1> {} |s, [x]| math::log(s, x));

// Arithmetic.
function!(Neg<1> {} |s, [x]| s.neg(x));
function!(Scale<1> { alpha } |s, [x]| s.mul(alpha, x));
function!(Add<2> {} |s, [a, b]| s.add(a, b));
function!(Sub<2> {} |s, [a, b]| s.sub(a, b));
function!(Mul<2> {} |s, [a, b]| s.mul(a, b));
function!(Div<2> {} |s, [a, b]| s.div(a, b));
function!(DivBackwardB<3> {} |s, [dy, b, y]| s.neg(s.div(s.mul(dy, y), b)));

/// `y = max(x, 0)`; NaN stays NaN.
///
/// # Panics
/// Like every kernel of this file: if the slices differ in length.
#[track_caller]
pub fn relu_forward(y: &mut [f32], x: &[f32]) {
    map("relu", y, Write::Set, [x], Relu {});
}

/// `dx = dy` where `y > 0` (or NaN, as in PyTorch), else 0. `y` is the output; the input will do
/// too.
#[track_caller]
pub fn relu_backward(dx: &mut [f32], write: Write, dy: &[f32], y: &[f32]) {
    map("relu_backward", dx, write, [dy, y], ReluBackward {});
}

/// `y = x` where `x > 0`, else `slope x`.
#[track_caller]
pub fn leaky_relu_forward(y: &mut [f32], x: &[f32], slope: f32) {
    map("leaky_relu", y, Write::Set, [x], LeakyRelu { slope });
}

/// `dx = dy` where `x > 0`, else `slope dy`. `x` is the input; the output will do too unless
/// `slope` is negative.
#[track_caller]
pub fn leaky_relu_backward(dx: &mut [f32], write: Write, dy: &[f32], x: &[f32], slope: f32) {
    map("leaky_relu_backward", dx, write, [dy, x], LeakyReluBackward { slope });
}

/// `y = x P(N(0, 1) <= x) = x (1 + erf(x / sqrt 2)) / 2`, the exact form.
/// Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016).
#[track_caller]
pub fn gelu_forward(y: &mut [f32], x: &[f32]) {
    map("gelu", y, Write::Set, [x], Gelu {});
}

/// `dx = dy (P(N(0, 1) <= x) + x density(x))`, from the *input*.
#[track_caller]
pub fn gelu_backward(dx: &mut [f32], write: Write, dy: &[f32], x: &[f32]) {
    map("gelu_backward", dx, write, [dy, x], GeluBackward {});
}

/// `y = 1 / (1 + exp(-x))`.
#[track_caller]
pub fn sigmoid_forward(y: &mut [f32], x: &[f32]) {
    map("sigmoid", y, Write::Set, [x], Sigmoid {});
}

/// `dx = dy y (1 - y)`.
#[track_caller]
pub fn sigmoid_backward(dx: &mut [f32], write: Write, dy: &[f32], y: &[f32]) {
    map("sigmoid_backward", dx, write, [dy, y], SigmoidBackward {});
}

/// `y = tanh x`.
#[track_caller]
pub fn tanh_forward(y: &mut [f32], x: &[f32]) {
    map("tanh", y, Write::Set, [x], Tanh {});
}

/// `dx = dy (1 - y^2)`.
#[track_caller]
pub fn tanh_backward(dx: &mut [f32], write: Write, dy: &[f32], y: &[f32]) {
    map("tanh_backward", dx, write, [dy, y], TanhBackward {});
}

/// `y = e^x`.
#[track_caller]
pub fn exp_forward(y: &mut [f32], x: &[f32]) {
    map("exp", y, Write::Set, [x], Exp {});
}

/// `dx = dy y`.
#[track_caller]
pub fn exp_backward(dx: &mut [f32], write: Write, dy: &[f32], y: &[f32]) {
    map("exp_backward", dx, write, [dy, y], Mul {});
}

/// `y = ln x`.
#[track_caller]
pub fn log_forward(y: &mut [f32], x: &[f32]) {
    map("log", y, Write::Set, [x], Log {});
}

/// `dx = dy / x`, from the *input*.
#[track_caller]
pub fn log_backward(dx: &mut [f32], write: Write, dy: &[f32], x: &[f32]) {
    map("log_backward", dx, write, [dy, x], Div {});
}

/// `y = -x`.
#[track_caller]
pub fn neg_forward(y: &mut [f32], x: &[f32]) {
    map("neg", y, Write::Set, [x], Neg {});
}

/// `dx = -dy`.
#[track_caller]
pub fn neg_backward(dx: &mut [f32], write: Write, dy: &[f32]) {
    map("neg_backward", dx, write, [dy], Neg {});
}

/// `y = a + b`.
#[track_caller]
pub fn add(y: &mut [f32], a: &[f32], b: &[f32]) {
    map("add", y, Write::Set, [a, b], Add {});
}

/// `y = a - b`.
#[track_caller]
pub fn sub(y: &mut [f32], a: &[f32], b: &[f32]) {
    map("sub", y, Write::Set, [a, b], Sub {});
}

/// `y = a b`.
#[track_caller]
pub fn mul(y: &mut [f32], a: &[f32], b: &[f32]) {
    map("mul", y, Write::Set, [a, b], Mul {});
}

/// `da = dy b`, the gradient of a product with respect to either factor, given the other.
#[track_caller]
pub fn mul_backward(da: &mut [f32], write: Write, dy: &[f32], b: &[f32]) {
    map("mul_backward", da, write, [dy, b], Mul {});
}

/// `y = a / b`.
#[track_caller]
pub fn div(y: &mut [f32], a: &[f32], b: &[f32]) {
    map("div", y, Write::Set, [a, b], Div {});
}

/// `da = dy / b`, the gradient of a quotient with respect to the dividend.
#[track_caller]
pub fn div_backward_a(da: &mut [f32], write: Write, dy: &[f32], b: &[f32]) {
    map("div_backward_a", da, write, [dy, b], Div {});
}

/// `db = -dy y / b`, the gradient of the quotient `y = a / b` with respect to the divisor.
#[track_caller]
pub fn div_backward_b(db: &mut [f32], write: Write, dy: &[f32], b: &[f32], y: &[f32]) {
    map("div_backward_b", db, write, [dy, b, y], DivBackwardB {});
}

/// `y = alpha x`.
#[track_caller]
pub fn scale(y: &mut [f32], x: &[f32], alpha: f32) {
    map("scale", y, Write::Set, [x], Scale { alpha });
}

/// `dx (=|+=) alpha dy`: the gradient of a sum, a difference or a scaling.
#[track_caller]
pub fn add_scaled(dx: &mut [f32], write: Write, dy: &[f32], alpha: f32) {
    map("add_scaled", dx, write, [dy], Scale { alpha });
}
