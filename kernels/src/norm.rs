//! Batch normalization: Ioffe and Szegedy (2015), with PyTorch's conventions.
//!
//! A channel is normalized by its mean and variance over all images and places. Channels are
//! independent and are what threads divide; a thread finishes one channel, statistics and output,
//! before it starts the next, so that the second and third visit of its data find it in the cache.
//! Sums are made as in [`crate::reduce`]: short runs in `f32`, totals in `f64`, in a fixed order.
//!
//! ```text
//! for each channel:                                       (threads split these)
//!   for each run of each of its planes: mean and variance, combined in f64
//!   for each run: y
//! backward:
//!   for each run: the sums of dy and dy * normal;  for each run: dx
//! ```
//!
//! Planes shorter than 8 (such as the single numbers of `[n, c]` data) are first gathered
//! into one long plane per channel.

use crate::{
    Write,
    elementwise::{Function, function},
    isa::Isa,
    layout,
    par::{self, Split, Work},
    scratch,
    simd::{Simd, SimdKernel},
    tuning::reduce::RUN,
};
use std::{marker::PhantomData, ops::Range};

/// The shape `[n, c, hw]`: images, channels, places in a plane (1 for plain features).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormDims {
    /// Images.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// Places in a plane, height times width.
    pub hw: usize,
}

/// What to normalize with, per channel.
#[derive(Clone, Copy, Debug)]
pub struct Scale<'a> {
    /// Factor, `[c]`.
    pub gamma: &'a [f32],
    /// Offset, `[c]`.
    pub beta: &'a [f32],
    /// What is added to the variance, so that a constant channel is not divided by zero.
    pub eps: f32,
}

/// Training: the mean and the (biased) variance of each channel, and
/// `y = gamma (x - mean) / sqrt(var + eps) + beta`.
///
/// y `[n, c, hw]`, mean `[c]`, var `[c]`, x `[n, c, hw]`
///
/// # Panics
/// Like every kernel of this file: if a length does not fit the dimensions.
#[track_caller]
pub fn batch_norm_train(
    y: &mut [f32],
    mean: &mut [f32],
    var: &mut [f32],
    x: &[f32],
    scale: &Scale,
    d: &NormDims,
) {
    d.check("batch_norm", &[("y", y.len()), ("x", x.len())]);
    d.check_channels("batch_norm", &[("mean", mean.len()), ("var", var.len())]);
    d.check_channels("batch_norm", &[("gamma", scale.gamma.len()), ("beta", scale.beta.len())]);
    if d.planes_are_short() {
        return d.with_long_planes([x], y, Write::Set, |[x], y, d| {
            batch_norm_train(y, mean, var, x, scale, d);
        });
    }
    let isa = Isa::current();
    let data = (Channels::new(y, d), mean, var);
    par::split(Work::Elements(3 * x.len()), d.c, data, |channels, (y, mean, var)| {
        isa.dispatch(Train { y, mean, var, x, scale, channels, d });
    });
}

/// Evaluation: the same with statistics from elsewhere, usually [`update_running`]'s.
///
/// y `[n, c, hw]`, x `[n, c, hw]`, mean `[c]`, var `[c]`
#[track_caller]
pub fn batch_norm_eval(
    y: &mut [f32],
    x: &[f32],
    mean: &[f32],
    var: &[f32],
    scale: &Scale,
    d: &NormDims,
) {
    d.check("batch_norm", &[("y", y.len()), ("x", x.len())]);
    d.check_channels("batch_norm", &[("mean", mean.len()), ("var", var.len())]);
    d.check_channels("batch_norm", &[("gamma", scale.gamma.len()), ("beta", scale.beta.len())]);
    if d.planes_are_short() {
        return d.with_long_planes([x], y, Write::Set, |[x], y, d| {
            batch_norm_eval(y, x, mean, var, scale, d);
        });
    }
    let isa = Isa::current();
    par::split(Work::Elements(2 * x.len()), d.c, Channels::new(y, d), |channels, y| {
        isa.dispatch(Eval { y, mean, var, x, scale, channels, d });
    });
}

/// The gradients. With `training` the statistics are those of `x`, and gradients flow through them.
///
/// Each sum running over a channel's `N = n hw` elements and `normal = (x - mean) / sqrt(var +
/// eps)`: `dbeta = sum(dy)`, `dgamma = sum(dy normal)`, and `dx (=|+=) gamma / sqrt(var + eps) (dy
/// - (dbeta + normal dgamma) / N)`, without the inner bracket in evaluation. `dgamma` and `dbeta`
/// are overwritten whatever `write` says.
///
/// dx `[n, c, hw]`, dgamma `[c]`, dbeta `[c]`, dy `[n, c, hw]`, x `[n, c, hw]`, mean `[c]`, var
/// `[c]`
#[track_caller]
#[allow(clippy::too_many_arguments)] // the calling convention: outputs, inputs, settings, dims
pub fn batch_norm_backward(
    dx: &mut [f32],
    write: Write,
    dgamma: &mut [f32],
    dbeta: &mut [f32],
    dy: &[f32],
    x: &[f32],
    mean: &[f32],
    var: &[f32],
    scale: &Scale,
    training: bool,
    d: &NormDims,
) {
    let op = "batch_norm_backward";
    d.check(op, &[("dx", dx.len()), ("dy", dy.len()), ("x", x.len())]);
    d.check_channels(op, &[("dgamma", dgamma.len()), ("dbeta", dbeta.len())]);
    d.check_channels(op, &[("mean", mean.len()), ("var", var.len())]);
    d.check_channels(op, &[("gamma", scale.gamma.len())]);
    if d.planes_are_short() {
        return d.with_long_planes([x, dy], dx, write, |[x, dy], dx, d| {
            let write = Write::Set; // the copy back adds
            batch_norm_backward(dx, write, dgamma, dbeta, dy, x, mean, var, scale, training, d);
        });
    }
    let isa = Isa::current();
    let data = (Channels::new(dx, d), dgamma, dbeta);
    par::split(Work::Elements(4 * x.len()), d.c, data, |channels, (dx, dgamma, dbeta)| {
        let kernel =
            Backward { dx, write, dgamma, dbeta, dy, x, mean, var, scale, training, channels, d };
        isa.dispatch(kernel);
    });
}

/// `running = (1 - momentum) running + momentum batch`, with the unbiased variance, as PyTorch has
/// it.
///
/// running_mean, running_var, mean, var `[c]`; `count` is the number of elements of a channel, `n
/// hw`. For a single element PyTorch refuses to train; here its variance counts as it is.
///
/// # Panics
/// If the lengths differ.
#[track_caller]
pub fn update_running(
    running_mean: &mut [f32],
    running_var: &mut [f32],
    mean: &[f32],
    var: &[f32],
    momentum: f32,
    count: usize,
) {
    let len = running_mean.len();
    for other in [running_var.len(), mean.len(), var.len()] {
        assert!(other == len, "update_running: {other} channels, running_mean has {len}");
    }
    let unbiased = if count > 1 { count as f32 / (count - 1) as f32 } else { 1.0 };
    let blend = |running: &mut f32, batch: f32| *running += momentum * (batch - *running);
    running_mean.iter_mut().zip(mean).for_each(|(running, &mean)| blend(running, mean));
    running_var.iter_mut().zip(var).for_each(|(running, &var)| blend(running, unbiased * var));
}

impl NormDims {
    #[track_caller]
    fn check(&self, op: &str, lens: &[(&str, usize)]) {
        let expected = crate::elements(&[self.n, self.c, self.hw]);
        for (name, len) in lens {
            assert!(
                *len == expected,
                "{op}: {name} has {len} values, {expected} expected by {self:?}"
            );
        }
    }

    #[track_caller]
    fn check_channels(&self, op: &str, lens: &[(&str, usize)]) {
        let expected = self.c;
        for (name, len) in lens {
            assert!(*len == expected, "{op}: {name} has {len} values for {expected} channels");
        }
    }

    fn planes_are_short(&self) -> bool {
        self.hw < 8 && self.n > 1
    }

    /// Runs `f` on copies in which every channel is one plane, and copies its output back.
    fn with_long_planes<const N: usize>(
        &self,
        inputs: [&[f32]; N],
        output: &mut [f32],
        write: Write,
        f: impl FnOnce([&[f32]; N], &mut [f32], &NormDims),
    ) {
        let NormDims { n, c, hw } = *self;
        let len = n * c * hw;
        scratch::with((N + 1) * len, |all| {
            let (long_output, long_inputs) = all.split_at_mut(len);
            for (long, input) in long_inputs.chunks_exact_mut(len.max(1)).zip(inputs) {
                layout::permute(long, Write::Set, input, &[n, c, hw], &[1, 0, 2]);
            }
            let inputs = std::array::from_fn(|i| &long_inputs[i * len..][..len]);
            f(inputs, long_output, &NormDims { n: 1, c, hw: n * hw });
            layout::permute(output, write, long_output, &[c, n, hw], &[1, 0, 2]);
        });
    }

    /// The indices of a plane.
    #[inline(always)]
    fn plane(&self, image: usize, channel: usize) -> Range<usize> {
        let start = (image * self.c + channel) * self.hw;
        start..start + self.hw
    }

    /// The planes of a channel, cut into runs that an `f32` may sum and the L1 cache holds.
    #[inline(always)]
    fn runs(&self, channel: usize) -> impl Iterator<Item = Range<usize>> {
        let planes = (0..self.n).map(move |image| self.plane(image, channel));
        planes.flat_map(|plane| {
            let end = plane.end;
            plane.step_by(RUN).map(move |start| start..end.min(start + RUN))
        })
    }
}

/// Some channels of `[n, c, hw]`, which no one else may touch: what threads divide. Not a slice,
/// since the planes of a channel lie apart.
struct Channels<'a> {
    data: *mut f32,
    d: NormDims,
    channels: Range<usize>,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is a `&mut [f32]`, less what other values hold.
unsafe impl Send for Channels<'_> {}

impl<'a> Channels<'a> {
    fn new(data: &'a mut [f32], d: &NormDims) -> Self {
        assert_eq!(data.len(), d.n * d.c * d.hw);
        Channels { data: data.as_mut_ptr(), d: *d, channels: 0..d.c, borrow: PhantomData }
    }

    /// The plane of an image and one of the channels held here.
    #[inline(always)]
    fn plane(&mut self, image: usize, channel: usize) -> &mut [f32] {
        assert!(image < self.d.n && self.channels.contains(&channel));
        let plane = self.d.plane(image, channel);
        // SAFETY: inside of the data, and of a channel that is ours alone; `self` is borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(plane.start), plane.len()) }
    }
}

impl Split for Channels<'_> {
    fn split_at(self, mid: usize) -> (Self, Self) {
        let Range { start, end } = self.channels;
        assert!(mid <= end - start);
        (
            Channels { channels: start..start + mid, ..self },
            Channels { channels: start + mid..end, ..self },
        )
    }
}

/// The mean and the biased variance of a channel, in one pass over memory: each run's own mean and
/// squared distances from it are found while it is in the L1 cache, and put together by
/// Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
/// variances" (1979). Unlike the mean of squares less the square of the mean, nothing cancels.
#[inline(always)]
fn statistics<S: Simd>(s: S, x: &[f32], channel: usize, d: &NormDims) -> (f32, f32) {
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for run in d.runs(channel) {
        let (x, len) = (&x[run.clone()], run.len() as f64);
        let own_mean = sum(s, [x], [0.0], Itself {}) / len as f32;
        let own_squares = sum(s, [x], [own_mean], SquaredDistance { mean: own_mean });
        let distance = f64::from(own_mean) - mean;
        let total = count + len;
        mean += distance * len / total;
        squares += f64::from(own_squares) + distance * distance * count * len / total;
        count = total;
    }
    (mean as f32, (squares / count) as f32)
}

/// The sum of `f(x)` over a run. The lanes of a vector beyond the end hold `fill`, for which `f`
/// must give 0.
#[inline(always)]
fn sum<S: Simd, const N: usize>(s: S, x: [&[f32]; N], fill: [f32; N], f: impl Function<N>) -> f32 {
    let mut sums = [s.zero(); 4];
    let (len, mut at) = (x[0].len(), 0);
    while at + 4 * S::LANES <= len {
        for sum in &mut sums {
            *sum = s.add(*sum, eval(s, x.map(|x| &x[at..at + S::LANES]), fill, f));
            at += S::LANES;
        }
    }
    for at in (at..len).step_by(S::LANES) {
        sums[0] = s.add(sums[0], eval(s, x.map(|x| &x[at..len]), fill, f));
    }
    let [a, b, c, d] = sums;
    s.reduce_sum(s.add(s.add(a, b), s.add(c, d)))
}

/// `f` of the first vectors.
#[inline(always)]
fn eval<S: Simd, const N: usize>(
    s: S,
    x: [&[f32]; N],
    fill: [f32; N],
    f: impl Function<N>,
) -> S::F32 {
    let mut vectors = [s.zero(); N];
    for ((vector, x), fill) in vectors.iter_mut().zip(x).zip(fill) {
        *vector = s.read_or(x, fill);
    }
    f.eval(s, vectors)
}

function!(Itself<1> {} |_s, [x]| x);
function!(SquaredDistance<1> { mean } |s, [x]| {
    let distance = s.sub(x, mean);
    s.mul(distance, distance)
});
function!(TimesDistance<2> { mean } |s, [dy, x]| s.mul(dy, s.sub(x, mean)));

struct Train<'a> {
    y: Channels<'a>,
    mean: &'a mut [f32],
    var: &'a mut [f32],
    x: &'a [f32],
    scale: &'a Scale<'a>,
    channels: Range<usize>,
    d: &'a NormDims,
}

impl SimdKernel for Train<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Train { mut y, mean, var, x, scale, channels, d } = self;
        for ((channel, mean), var) in channels.zip(mean).zip(var) {
            (*mean, *var) = statistics(s, x, channel, d);
            normalize(s, &mut y, x, channel, *mean, *var, scale, d);
        }
    }
}

struct Eval<'a> {
    y: Channels<'a>,
    mean: &'a [f32],
    var: &'a [f32],
    x: &'a [f32],
    scale: &'a Scale<'a>,
    channels: Range<usize>,
    d: &'a NormDims,
}

impl SimdKernel for Eval<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Eval { mut y, mean, var, x, scale, channels, d } = self;
        for c in channels {
            normalize(s, &mut y, x, c, mean[c], var[c], scale, d);
        }
    }
}

/// `y = gamma (x - mean) / sqrt(var + eps) + beta` for one channel.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // the calling convention: outputs, inputs, settings, dims
fn normalize<S: Simd>(
    s: S,
    y: &mut Channels,
    x: &[f32],
    channel: usize,
    mean: f32,
    var: f32,
    scale: &Scale,
    d: &NormDims,
) {
    let factor = s.splat(scale.gamma[channel] / (var + scale.eps).sqrt());
    let (center, offset) = (s.splat(mean), s.splat(scale.beta[channel]));
    for image in 0..d.n {
        let (y, x) = (y.plane(image, channel), &x[d.plane(image, channel)]);
        for (y, x) in y.chunks_mut(S::LANES).zip(x.chunks(S::LANES)) {
            s.write(y, s.fma(s.sub(s.read(x), center), factor, offset));
        }
    }
}

struct Backward<'a> {
    dx: Channels<'a>,
    write: Write,
    dgamma: &'a mut [f32],
    dbeta: &'a mut [f32],
    dy: &'a [f32],
    x: &'a [f32],
    mean: &'a [f32],
    var: &'a [f32],
    scale: &'a Scale<'a>,
    training: bool,
    channels: Range<usize>,
    d: &'a NormDims,
}

impl SimdKernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Backward {
            mut dx,
            write,
            dgamma,
            dbeta,
            dy,
            x,
            mean,
            var,
            scale,
            training,
            channels,
            d,
        } = self;
        let count = (d.n * d.hw) as f32;
        for ((c, dgamma), dbeta) in channels.zip(dgamma).zip(dbeta) {
            let inv_std = 1.0 / (var[c] + scale.eps).sqrt();
            let center = s.splat(mean[c]);
            let (mut sum_dy, mut sum_product) = (0.0, 0.0);
            for run in d.runs(c) {
                let (dy, x) = (&dy[run.clone()], &x[run]);
                let product = TimesDistance { mean: mean[c] };
                sum_dy += f64::from(sum(s, [dy], [0.0], Itself {}));
                sum_product += f64::from(sum(s, [dy, x], [0.0, mean[c]], product));
            }
            *dbeta = sum_dy as f32;
            *dgamma = sum_product as f32 * inv_std;

            // dx = a dy + b (x - mean) + c
            let a = scale.gamma[c] * inv_std;
            let through = if training { -a / count } else { 0.0 };
            let (b, c0) = (through * inv_std * *dgamma, through * *dbeta);
            let (a, b, c0) = (s.splat(a), s.splat(b), s.splat(c0));
            for image in 0..d.n {
                let (dx, plane) = (dx.plane(image, c), d.plane(image, c));
                let inputs = dy[plane.clone()].chunks(S::LANES).zip(x[plane].chunks(S::LANES));
                for (dx, (dy, x)) in dx.chunks_mut(S::LANES).zip(inputs) {
                    let old = if write == Write::Add { s.add(s.read(dx), c0) } else { c0 };
                    let through = s.fma(b, s.sub(s.read(x), center), old);
                    s.write(dx, s.fma(a, s.read(dy), through));
                }
            }
        }
    }
}
