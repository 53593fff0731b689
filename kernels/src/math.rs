//! Exponential, logarithm and their relatives, a vector at a time.
//!
//! The recipe is always the same: reduce the argument to a short interval with an exact identity,
//! evaluate a polynomial there, undo the reduction. The coefficients minimise the largest relative
//! error (Lawson's reweighted least squares on Chebyshev points); each comment gives the error of
//! the polynomial itself, where half a unit in the last place is 6e-8. `tests/elementwise.rs`
//! measures the errors of the whole functions against f64; they are in the doc comments.

use crate::simd::Simd;

/// `c[0] + c[1] x + c[2] x^2 + ..` by Horner's rule.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::F32, c: [f32; N]) -> S::F32 {
    let mut sum = s.splat(c[N - 1]);
    for &c in c[..N - 1].iter().rev() {
        sum = s.fma(sum, x, s.splat(c));
    }
    sum
}

/// ln 2 in two parts: `n * LN_2_HIGH` is exact for `|n| < 512`.
const LN_2_HIGH: f32 = 355.0 / 512.0;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// `e^x` within 1 ulp, subnormal results and NaN included.
///
/// `x = n ln 2 + r` with `|r| <= ln(2)/2`, then `e^x = 2^n e^r` and `e^r = 1 + r + r^2 P(r)`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F32) -> S::F32 {
    // Beyond these it is infinite or zero. The order of the arguments lets NaN pass.
    let x = s.max(s.splat(-104.0), s.min(s.splat(89.0), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-LN_2_HIGH), x);
    let r = s.fma(n, s.splat(-LN_2_LOW), r);
    // 3e-9
    let p = polynomial(
        s,
        r,
        [0.499_999_94, 0.166_665_2, 0.041_668_393, 0.008_368_781, 0.001_381_446_6],
    );
    let e_r = s.add(s.fma(s.mul(r, r), p, r), s.splat(1.0));
    // In two steps, because 2^n alone leaves the range of normal numbers at both ends.
    let half = s.round(s.mul(n, s.splat(0.5)));
    s.mul(s.mul(e_r, s.pow2(half)), s.pow2(s.sub(n, half)))
}

/// `ln x` within 1 ulp; -infinity at 0, NaN below.
///
/// `x = 2^n (1 + r)` with `1 + r` around 1, then `ln(1 + r) = r - r^2/2 + r^3 P(r)`.
#[inline(always)]
pub(crate) fn log<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let zero = s.zero();
    let subnormal = s.gt(s.splat(f32::MIN_POSITIVE), x);
    let scaled = s.select(subnormal, s.mul(x, s.splat(8_388_608.0)), x);
    let (m, n) = s.split_exponent(scaled);
    let n = s.add(n, s.select(subnormal, s.splat(-23.0), zero));
    let upper = s.gt(m, s.splat(std::f32::consts::SQRT_2));
    let n = s.add(n, s.select(upper, s.splat(1.0), zero));
    let r = s.sub(s.select(upper, s.mul(m, s.splat(0.5)), m), s.splat(1.0));
    // 6e-9
    let p = polynomial(
        s,
        r,
        [
            0.333_333_3,
            -0.250_008_2,
            0.200_012_27,
            -0.166_233_57,
            0.142_017_57,
            -0.131_601_83,
            0.127_615_76,
            -0.076_344_97,
        ],
    );
    let r2 = s.mul(r, r);
    let small = s.fma(n, s.splat(LN_2_LOW), s.mul(s.mul(r, r2), p));
    let small = s.fma(s.splat(-0.5), r2, small);
    let finite = s.fma(n, s.splat(LN_2_HIGH), s.add(r, small));
    let not_positive = s.select(s.eq(x, zero), s.splat(f32::NEG_INFINITY), s.splat(f32::NAN));
    let result = s.select(s.gt(x, zero), finite, not_positive);
    s.select(s.eq(x, s.splat(f32::INFINITY)), x, result)
}

/// `1 / (1 + e^-x)` within 3 ulp, but 0 where the result would be subnormal.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::F32) -> S::F32 {
    s.div(s.splat(1.0), s.add(s.splat(1.0), exp(s, s.neg(x))))
}

/// `tanh x` within 2 ulp.
///
/// Near zero `x + x^3 P(x^2)`, elsewhere `1 - 2 / (e^2|x| + 1)` with the sign of `x`.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let size = s.abs(x);
    let x2 = s.mul(x, x);
    // 5e-9
    let p = polynomial(
        s,
        x2,
        [-0.333_332_8, 0.133_314_2, -0.053_737_797, 0.020_632_546, -0.005_697_384_5],
    );
    let near = s.fma(s.mul(x, x2), p, x);
    let e_2x = exp(s, s.add(size, size));
    let far = s.sub(s.splat(1.0), s.div(s.splat(2.0), s.add(e_2x, s.splat(1.0))));
    let far = s.select(s.gt(s.zero(), x), s.neg(far), far);
    s.select(s.gt(s.splat(0.625), size), near, far)
}

/// The standard normal distribution function at `x`, `(1 + erf(x / sqrt 2)) / 2`, and its density.
///
/// Both need `exp(-x^2/2)`. On the left tail the distribution is that times `u Q(u)`, a polynomial
/// in `u = 1 / (1 + 0.3 |x|)`, so it keeps its relative precision where `1 + erf` would cancel; on
/// the right it is 1 minus the tail. Within 4 ulp with an FMA instruction; without one, the
/// rounding of `x^2` costs up to `x^2 / 2` ulp more.
#[inline(always)]
pub(crate) fn normal<S: Simd>(s: S, x: S::F32) -> (S::F32, S::F32) {
    let size = s.min(s.splat(14.5), s.abs(x)); // both are zero there
    let x2 = s.mul(size, size);
    let rounding = s.fma(size, size, s.neg(x2));
    let e = exp(s, s.mul(s.splat(-0.5), x2));
    let e = s.fma(e, s.mul(s.splat(-0.5), rounding), e);
    let u = s.div(s.splat(1.0), s.fma(s.splat(0.3), size, s.splat(1.0)));
    // 3e-9
    let q = polynomial(
        s,
        u,
        [
            0.119_686_7,
            0.119_571_68,
            0.110_236_496,
            0.078_384_89,
            0.096_169_956,
            -0.079_446_85,
            0.191_811_46,
            -0.228_233,
            0.112_443_57,
            -0.020_624_883,
        ],
    );
    let tail = s.mul(e, s.mul(u, q));
    let distribution = s.select(s.gt(x, s.zero()), s.sub(s.splat(1.0), tail), tail);
    const INV_SQRT_2_PI: f32 = 0.398_942_3;
    (distribution, s.mul(e, s.splat(INV_SQRT_2_PI)))
}
