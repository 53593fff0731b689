//! `db` from `dy`: the sum of each output channel, image by image, in four vectors of partial sums.
//! Threads split the channels.

use super::Conv2dDims;
use crate::{
    Write,
    isa::Isa,
    par::{self, Work},
    simd::{Simd, SimdKernel},
};

/// The gradient `db [o]`: the sum of `dy [n, o, oh, ow]` over images and pixels.
///
/// # Panics
/// If a slice has another length than `d` says, or `d` is no convolution (see [`Conv2dDims`]).
#[track_caller]
pub fn backward_bias(db: &mut [f32], write: Write, dy: &[f32], d: &Conv2dDims) {
    d.check("backward_bias", &[]);
    d.check("backward_bias", &[("db", db.len(), d.o), ("dy", dy.len(), d.y_len())]);
    let isa = Isa::current();
    let pixels = d.oh() * d.ow();
    par::split(Work::Elements(dy.len()), d.o, db, |channels, db| {
        for (o, db) in channels.zip(db) {
            let images =
                (0..d.n).map(|n| isa.dispatch(Sum(&dy[(n * d.o + o) * pixels..][..pixels])));
            let sum: f32 = images.sum();
            *db = if write == Write::Add { *db + sum } else { sum };
        }
    });
}

/// The sum of a slice, in four vectors of partial sums.
struct Sum<'a>(&'a [f32]);

impl SimdKernel for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.zero(); 4];
        for four in self.0.chunks(4 * S::LANES) {
            for (sum, x) in sums.iter_mut().zip(four.chunks(S::LANES)) {
                *sum = s.add(*sum, s.read(x));
            }
        }
        s.reduce_sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
    }
}
