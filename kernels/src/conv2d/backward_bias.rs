//! `db` from `dy`: the sum of each output channel, image by image, in four vectors of partial sums.
//! Threads split the channels.

use super::Conv2dDims;
use crate::{
    Write,
    isa::Isa,
    par::{self, Work},
    reduce,
    simd::{Simd, SimdKernel},
};

/// The gradient `db [o]`: the sum of `dy [n, o, oh, ow]` over images and pixels.
///
/// # Panics
/// If a slice has another length than `d` says, or `d` is no convolution (see [`Conv2dDims`]).
#[track_caller]
pub fn backward_bias(db: &mut [f32], write: Write, dy: &[f32], d: &Conv2dDims) {
    d.check("backward_bias");
    d.check_lengths("backward_bias", &[("db", db.len(), d.o), ("dy", dy.len(), d.y_len())]);
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

struct Sum<'a>(&'a [f32]);

impl SimdKernel for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        reduce::sum_short(s, self.0)
    }
}
