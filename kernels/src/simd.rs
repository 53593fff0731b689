//! A vector of `f32`, whatever the processor.
//!
//! A kernel is written once against [`Simd`] and compiled once per instruction set. It is a value
//! that implements [`SimdKernel`]: its fields are the arguments, `run` is the body.
//! [`Isa::dispatch`](crate::isa::Isa::dispatch) calls `run` inside a function compiled *with* the
//! instructions of the chosen set; everything `run` touches must be `#[inline(always)]`, so that it
//! is compiled there too:
//!
//! ```
//! use ferrotape_kernels::{isa::Isa, simd::{Simd, SimdKernel}};
//!
//! struct Scale<'a> { y: &'a mut [f32], alpha: f32 }
//!
//! impl SimdKernel for Scale<'_> {
//!     type Output = ();
//!     #[inline(always)]
//!     fn run<S: Simd>(self, s: S) {
//!         let alpha = s.splat(self.alpha);
//!         for y in self.y.chunks_mut(S::LANES) {
//!             let v = s.mul(s.read(y), alpha);
//!             s.write(y, v);
//!         }
//!     }
//! }
//!
//! let mut y = [1.0, 2.0, 3.0];
//! Isa::current().dispatch(Scale { y: &mut y, alpha: 2.0 });
//! assert_eq!(y, [2.0, 4.0, 6.0]);
//! ```
//!
//! Threads stay outside: split the work first ([`crate::par`]), dispatch inside each piece. A
//! closure handed to rayon is a function of its own and would be compiled without the instructions.
//!
//! A token (`Avx2`, `Scalar`, ...) can be had only from the check that the processor has the
//! instructions, which is why its arithmetic is safe to call. Only pointers are not.

mod scalar;
pub use scalar::Scalar;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
pub use {avx2::Avx2, avx512::Avx512};

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
pub use neon::Neon;

/// Asks for the cache line at `p`, where the processor can be asked. Any address will do.
#[inline(always)]
pub fn prefetch(p: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64, and a prefetch never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Scalar {}
    #[cfg(target_arch = "x86_64")]
    impl Sealed for super::Avx2 {}
    #[cfg(target_arch = "x86_64")]
    impl Sealed for super::Avx512 {}
    #[cfg(target_arch = "aarch64")]
    impl Sealed for super::Neon {}
}

/// A kernel that can be compiled for any instruction set.
pub trait SimdKernel {
    /// What the kernel returns.
    type Output;

    /// The body. Implementors mark it `#[inline(always)]`.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// The operations on a vector of [`LANES`](Simd::LANES) `f32` that the kernels need, and no more.
///
/// Sealed: unsafe code relies on what its implementations promise.
pub trait Simd: sealed::Sealed + Copy + Send + Sync + 'static {
    /// The vector.
    type F32: Copy;
    /// One boolean per lane.
    type Mask: Copy;
    /// Floats in a vector.
    const LANES: usize;
    /// Rows of the register tile of matrix multiplication; it is two vectors wide. Chosen so that
    /// the tile's accumulators, two vectors of B, one of A, and the pointers to the rows fit the
    /// registers.
    const TILE_ROWS: usize;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::F32;

    /// The vector at `p`, which need not be aligned.
    ///
    /// # Safety
    /// `p` must be valid for reading `LANES` floats.
    unsafe fn load(self, p: *const f32) -> Self::F32;

    /// Writes the vector to `p`, which need not be aligned.
    ///
    /// # Safety
    /// `p` must be valid for writing `LANES` floats.
    unsafe fn store(self, p: *mut f32, v: Self::F32);

    /// Like [`store`](Simd::store), but past the caches where the processor can: for outputs so
    /// large that they would push everything else out. Call [`fence`](Simd::fence) after the last
    /// one.
    ///
    /// # Safety
    /// `p` must be valid for writing `LANES` floats and aligned to the size of a vector.
    #[inline(always)]
    unsafe fn stream(self, p: *mut f32, v: Self::F32) {
        // SAFETY: the caller promises LANES writable floats.
        unsafe { self.store(p, v) }
    }

    /// Makes what was [streamed](Simd::stream) visible to other threads.
    #[inline(always)]
    fn fence(self) {}

    /// The first `n <= LANES` lanes from `p`, zero in the others.
    ///
    /// # Safety
    /// `p` must be valid for reading `n` floats; nothing beyond is touched.
    unsafe fn load_partial(self, p: *const f32, n: usize) -> Self::F32;

    /// Writes the first `n <= LANES` lanes to `p`.
    ///
    /// # Safety
    /// `p` must be valid for writing `n` floats; nothing beyond is touched.
    unsafe fn store_partial(self, p: *mut f32, v: Self::F32, n: usize);

    /// `a + b`
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a - b`
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b`
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b + c`, rounded once where the processor can, twice on [`Scalar`].
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `if a > b { a } else { b }`: where either is NaN the result is `b`.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `if a < b { a } else { b }`: where either is NaN the result is `b`.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `|a|`
    fn abs(self, a: Self::F32) -> Self::F32;
    /// `-a`
    fn neg(self, a: Self::F32) -> Self::F32;
    /// The square root.
    fn sqrt(self, a: Self::F32) -> Self::F32;
    /// The nearest integer, ties to even. Exact for `|a| <= 2^22`, unspecified beyond.
    fn round(self, a: Self::F32) -> Self::F32;
    /// `2^n` for integral `n` in `-126..=127`; unspecified otherwise.
    fn pow2(self, n: Self::F32) -> Self::F32;
    /// `(m, e)` with `a = m * 2^e` and `m` in `[1, 2)`, for positive normal `a`; unspecified
    /// otherwise.
    fn split_exponent(self, a: Self::F32) -> (Self::F32, Self::F32);

    /// `a > b`, false where either is NaN.
    fn gt(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `a == b`, false where either is NaN.
    fn eq(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// Whether `a` is NaN.
    fn is_nan(self, a: Self::F32) -> Self::Mask;
    /// `a || b`
    fn or(self, a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// `if mask { a } else { b }`
    fn select(self, mask: Self::Mask, a: Self::F32, b: Self::F32) -> Self::F32;

    /// The lanes of `a` then of `b`, dealt into those at even and those at odd places.
    fn deinterleave(self, a: Self::F32, b: Self::F32) -> (Self::F32, Self::F32);
    /// The inverse of [`deinterleave`](Simd::deinterleave): `a0 b0 a1 b1 ..` as two vectors.
    fn interleave(self, a: Self::F32, b: Self::F32) -> (Self::F32, Self::F32);

    /// The sum of the lanes, in an order that only the instruction set decides.
    fn reduce_sum(self, a: Self::F32) -> f32;
    /// The largest lane; unspecified if a lane is NaN.
    fn reduce_max(self, a: Self::F32) -> f32;

    /// The `LANES` bytes at `p`, each as a float.
    ///
    /// # Safety
    /// `p` must be valid for reading `LANES` bytes.
    unsafe fn load_bytes(self, p: *const u8) -> Self::F32;
    /// Writes each lane, an integer in `0..=255`, as a byte to `p`.
    ///
    /// # Safety
    /// `p` must be valid for writing `LANES` bytes.
    unsafe fn store_bytes(self, p: *mut u8, v: Self::F32);

    /// All lanes zero.
    #[inline(always)]
    fn zero(self) -> Self::F32 {
        self.splat(0.0)
    }

    /// The start of `x`: `min(x.len(), LANES)` lanes, zero in the others.
    #[inline(always)]
    fn read(self, x: &[f32]) -> Self::F32 {
        if x.len() >= Self::LANES {
            // SAFETY: x holds at least LANES floats.
            unsafe { self.load(x.as_ptr()) }
        } else {
            // SAFETY: x holds exactly the x.len() floats that are read.
            unsafe { self.load_partial(x.as_ptr(), x.len()) }
        }
    }

    /// The start of `x`: `min(x.len(), LANES)` lanes, `fill` in the others.
    #[inline(always)]
    fn read_or(self, x: &[f32], fill: f32) -> Self::F32 {
        const LANE: [f32; MAX_LANES] =
            [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];
        if x.len() >= Self::LANES {
            return self.read(x);
        }
        let inside = self.gt(self.splat(x.len() as f32), self.read(&LANE));
        self.select(inside, self.read(x), self.splat(fill))
    }

    /// Writes the first `min(y.len(), LANES)` lanes to the start of `y`.
    #[inline(always)]
    fn write(self, y: &mut [f32], v: Self::F32) {
        if y.len() >= Self::LANES {
            // SAFETY: y holds at least LANES floats.
            unsafe { self.store(y.as_mut_ptr(), v) }
        } else {
            // SAFETY: y holds exactly the y.len() floats that are written.
            unsafe { self.store_partial(y.as_mut_ptr(), v, y.len()) }
        }
    }

    /// The start of `x`: `min(x.len(), LANES)` bytes as floats, zero in the other lanes.
    #[inline(always)]
    fn read_bytes(self, x: &[u8]) -> Self::F32 {
        const { assert!(Self::LANES <= MAX_LANES) };
        let mut lanes = [0; MAX_LANES];
        let x = if x.len() >= Self::LANES {
            x
        } else {
            copy_short(&mut lanes, x, x.len());
            &lanes[..]
        };
        // SAFETY: x holds at least LANES bytes.
        unsafe { self.load_bytes(x.as_ptr()) }
    }

    /// Writes the first `min(y.len(), LANES)` lanes, integers in `0..=255`, to the start of `y`.
    #[inline(always)]
    fn write_bytes(self, y: &mut [u8], v: Self::F32) {
        if y.len() >= Self::LANES {
            // SAFETY: y holds at least LANES bytes.
            unsafe { self.store_bytes(y.as_mut_ptr(), v) }
        } else {
            const { assert!(Self::LANES <= MAX_LANES) };
            let mut lanes = [0; MAX_LANES];
            // SAFETY: there are MAX_LANES bytes, and no vector has more.
            unsafe { self.store_bytes(lanes.as_mut_ptr(), v) };
            let len = y.len();
            copy_short(y, &lanes, len);
        }
    }
}

/// Copies fewer than 16 bytes in pieces of 8, 4, 2 and 1: a call of `memcpy` takes longer than they
/// do.
#[inline(always)]
fn copy_short(to: &mut [u8], from: &[u8], len: usize) {
    let mut at = 0;
    for piece in [8, 4, 2, 1] {
        if len & piece != 0 {
            to[at..at + piece].copy_from_slice(&from[at..at + piece]);
            at += piece;
        }
    }
}

/// The longest vector of any instruction set.
pub const MAX_LANES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    /// Runs every operation of `S` and compares each lane with plain Rust.
    struct Check;

    /// The lanes of a vector.
    #[inline(always)]
    fn lanes<S: Simd>(s: S, v: S::F32) -> Vec<f32> {
        let mut out = vec![f32::NAN; S::LANES];
        s.write(&mut out, v);
        out
    }

    impl SimdKernel for Check {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let n = S::LANES;
            let a: Vec<f32> = (0..n).map(|i| 1.75 * i as f32 - 5.5).collect();
            let b: Vec<f32> = (0..n).map(|i| 3.25 - 0.5 * i as f32).collect();
            let (va, vb) = (s.read(&a), s.read(&b));
            let expect = |f: &dyn Fn(f32, f32) -> f32| -> Vec<f32> {
                (0..n).map(|i| f(a[i], b[i])).collect()
            };

            assert_eq!(lanes(s, s.splat(3.5)), vec![3.5; n]);
            assert_eq!(lanes(s, s.add(va, vb)), expect(&|a, b| a + b));
            assert_eq!(lanes(s, s.sub(va, vb)), expect(&|a, b| a - b));
            assert_eq!(lanes(s, s.mul(va, vb)), expect(&|a, b| a * b));
            assert_eq!(lanes(s, s.div(va, vb)), expect(&|a, b| a / b));
            assert_eq!(lanes(s, s.fma(va, vb, va)), expect(&|a, b| a * b + a));
            assert_eq!(lanes(s, s.max(va, vb)), expect(&f32::max));
            assert_eq!(lanes(s, s.min(va, vb)), expect(&f32::min));
            assert_eq!(lanes(s, s.abs(va)), expect(&|a, _| a.abs()));
            assert_eq!(lanes(s, s.neg(va)), expect(&|a, _| -a));
            assert_eq!(lanes(s, s.sqrt(s.abs(va))), expect(&|a, _| a.abs().sqrt()));
            assert_eq!(lanes(s, s.round(va)), expect(&|a, _| a.round_ties_even()));
            assert_eq!(
                lanes(s, s.select(s.gt(va, vb), va, s.zero())),
                expect(&|a, b| if a > b { a } else { 0.0 })
            );
            assert_eq!(lanes(s, s.select(s.eq(va, va), vb, va)), b);

            // max and min give their second argument where there is a NaN, and comparisons are
            // false.
            let nan = s.splat(f32::NAN);
            assert!(lanes(s, s.max(va, nan)).iter().all(|x| x.is_nan()));
            assert_eq!(lanes(s, s.max(nan, va)), a);
            assert_eq!(lanes(s, s.min(nan, va)), a);
            assert_eq!(lanes(s, s.select(s.eq(nan, nan), va, vb)), b);
            assert_eq!(lanes(s, s.select(s.gt(nan, va), va, vb)), b);
            assert_eq!(lanes(s, s.select(s.is_nan(nan), va, vb)), a);
            assert_eq!(lanes(s, s.select(s.is_nan(vb), va, vb)), b);

            for e in -126..=127 {
                assert_eq!(lanes(s, s.pow2(s.splat(e as f32))), vec![(e as f32).exp2(); n]);
                let (mantissa, exponent) =
                    s.split_exponent(s.mul(s.splat(1.625), s.pow2(s.splat(e as f32))));
                assert_eq!(
                    (lanes(s, mantissa), lanes(s, exponent)),
                    (vec![1.625; n], vec![e as f32; n])
                );
            }

            let mut streamed = vec![0.0; 2 * n];
            let start = streamed.as_ptr().align_offset(size_of::<S::F32>());
            // SAFETY: aligned, and n floats follow within the 2 n.
            unsafe { s.stream(streamed[start..start + n].as_mut_ptr(), va) };
            s.fence();
            assert_eq!(streamed[start..start + n], a);

            let either = s.or(s.gt(va, vb), s.eq(vb, s.splat(b[0])));
            assert_eq!(
                lanes(s, s.select(either, va, s.zero())),
                expect(&|x, y| if x > y || y == b[0] { x } else { 0.0 })
            );
            for k in 0..=n {
                let bytes: Vec<u8> = (0..k).map(|i| (255 - 9 * i) as u8).collect();
                let mut floats: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte)).collect();
                floats.resize(n, 0.0);
                assert_eq!(lanes(s, s.read_bytes(&bytes)), floats);
                let mut out = vec![7; n + 1];
                s.write_bytes(&mut out[..k], s.read(&floats));
                assert_eq!((&out[..k], &out[k..]), (&bytes[..], &vec![7; n + 1 - k][..]));
            }

            let (even, odd) = s.deinterleave(va, vb);
            let both: Vec<f32> = a.iter().chain(&b).copied().collect();
            assert_eq!(lanes(s, even), both.iter().copied().step_by(2).collect::<Vec<_>>());
            assert_eq!(lanes(s, odd), both.iter().copied().skip(1).step_by(2).collect::<Vec<_>>());
            let (first, second) = s.interleave(even, odd);
            assert_eq!((lanes(s, first), lanes(s, second)), (a.clone(), b.clone()));

            assert_eq!(s.reduce_sum(va), a.iter().sum::<f32>());
            assert_eq!(s.reduce_max(va), a[n - 1]);
            assert_eq!(s.reduce_max(vb), b[0]);

            for k in 0..=n {
                let partial = lanes(s, s.read(&a[..k]));
                assert_eq!((&partial[..k], &partial[k..]), (&a[..k], &vec![0.0; n - k][..]));
                let filled = lanes(s, s.read_or(&a[..k], 9.0));
                assert_eq!((&filled[..k], &filled[k..]), (&a[..k], &vec![9.0; n - k][..]));
                let mut out = vec![7.0; n + 1];
                s.write(&mut out[..k], va);
                assert_eq!((&out[..k], &out[k..]), (&a[..k], &vec![7.0; n + 1 - k][..]));
            }
        }
    }

    #[test]
    fn every_operation_on_every_isa() {
        for isa in Isa::available() {
            isa.dispatch(Check);
        }
    }
}
