//! The portable vector: an array, which LLVM turns into whatever the baseline of the target has
//! (SSE2, NEON).

use super::Simd;

/// Runs anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scalar;

/// Eight floats: tiles as wide as those of AVX2, so that tests on one machine walk the same edges.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub struct Eight([f32; 8]);

#[inline(always)]
fn map(a: Eight, f: impl Fn(f32) -> f32) -> Eight {
    Eight(std::array::from_fn(|i| f(a.0[i])))
}

#[inline(always)]
fn zip(a: Eight, b: Eight, f: impl Fn(f32, f32) -> f32) -> Eight {
    Eight(std::array::from_fn(|i| f(a.0[i], b.0[i])))
}

impl Simd for Scalar {
    type F32 = Eight;
    type Mask = [bool; 8];
    const LANES: usize = 8;
    // 2 x 16 floats are 8 of the 16 SSE registers; 4 more hold B, and one or two A and the product.
    const TILE_ROWS: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> Eight {
        Eight([x; 8])
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Eight {
        // SAFETY: the caller promises 8 readable floats; read_unaligned asks no more.
        Eight(unsafe { p.cast::<[f32; 8]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Eight) {
        // SAFETY: the caller promises 8 writable floats; write_unaligned asks no more.
        unsafe { p.cast::<[f32; 8]>().write_unaligned(v.0) }
    }

    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> Eight {
        let mut v = Eight([0.0; 8]);
        for (i, lane) in v.0.iter_mut().enumerate().take(n) {
            // SAFETY: i < n, and the caller promises n readable floats.
            *lane = unsafe { *p.add(i) };
        }
        v
    }

    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, v: Eight, n: usize) {
        for (i, &lane) in v.0.iter().enumerate().take(n) {
            // SAFETY: i < n, and the caller promises n writable floats.
            unsafe { *p.add(i) = lane };
        }
    }

    #[inline(always)]
    fn add(self, a: Eight, b: Eight) -> Eight {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Eight, b: Eight) -> Eight {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Eight, b: Eight) -> Eight {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Eight, b: Eight) -> Eight {
        zip(a, b, |a, b| a / b)
    }

    /// Not `f32::mul_add`: without an FMA instruction that is a call into libm.
    #[inline(always)]
    fn fma(self, a: Eight, b: Eight, c: Eight) -> Eight {
        self.add(self.mul(a, b), c)
    }

    #[inline(always)]
    fn max(self, a: Eight, b: Eight) -> Eight {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: Eight, b: Eight) -> Eight {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn abs(self, a: Eight) -> Eight {
        map(a, f32::abs)
    }

    #[inline(always)]
    fn neg(self, a: Eight) -> Eight {
        map(a, |a| -a)
    }

    #[inline(always)]
    fn sqrt(self, a: Eight) -> Eight {
        map(a, f32::sqrt)
    }

    /// SSE2 has no rounding instruction, but adding 1.5 * 2^23 leaves no bits for a fraction.
    #[inline(always)]
    fn round(self, a: Eight) -> Eight {
        const SHIFT: f32 = 12_582_912.0;
        map(a, |a| (a + SHIFT) - SHIFT)
    }

    /// `n as i32` would saturate, lane by lane; the low bits of `n + 1.5 * 2^23` are the integer.
    #[inline(always)]
    fn pow2(self, n: Eight) -> Eight {
        const SHIFT: f32 = 12_582_912.0 + 127.0;
        map(n, |n| f32::from_bits((n + SHIFT).to_bits() << 23))
    }

    #[inline(always)]
    fn split_exponent(self, a: Eight) -> (Eight, Eight) {
        (
            map(a, |a| f32::from_bits(a.to_bits() & 0x007f_ffff | 0x3f80_0000)),
            map(a, |a| ((a.to_bits() >> 23) as i32 - 127) as f32),
        )
    }

    #[inline(always)]
    fn gt(self, a: Eight, b: Eight) -> [bool; 8] {
        std::array::from_fn(|i| a.0[i] > b.0[i])
    }

    #[inline(always)]
    fn eq(self, a: Eight, b: Eight) -> [bool; 8] {
        std::array::from_fn(|i| a.0[i] == b.0[i])
    }

    #[inline(always)]
    fn select(self, mask: [bool; 8], a: Eight, b: Eight) -> Eight {
        Eight(std::array::from_fn(|i| if mask[i] { a.0[i] } else { b.0[i] }))
    }

    #[inline(always)]
    fn is_nan(self, a: Eight) -> [bool; 8] {
        a.0.map(f32::is_nan)
    }

    #[inline(always)]
    fn or(self, a: [bool; 8], b: [bool; 8]) -> [bool; 8] {
        std::array::from_fn(|i| a[i] || b[i])
    }

    #[inline(always)]
    unsafe fn load_bytes(self, p: *const u8) -> Eight {
        // SAFETY: the caller promises 8 readable bytes.
        Eight(unsafe { p.cast::<[u8; 8]>().read() }.map(f32::from))
    }

    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut u8, v: Eight) {
        // SAFETY: the caller promises 8 writable bytes.
        unsafe { p.cast::<[u8; 8]>().write(v.0.map(|lane| lane as u8)) }
    }

    #[inline(always)]
    fn deinterleave(self, a: Eight, b: Eight) -> (Eight, Eight) {
        let both = |i: usize| if i < 8 { a.0[i] } else { b.0[i - 8] };
        (
            Eight(std::array::from_fn(|i| both(2 * i))),
            Eight(std::array::from_fn(|i| both(2 * i + 1))),
        )
    }

    #[inline(always)]
    fn interleave(self, a: Eight, b: Eight) -> (Eight, Eight) {
        let dealt = |i: usize| if i.is_multiple_of(2) { a.0[i / 2] } else { b.0[i / 2] };
        (Eight(std::array::from_fn(dealt)), Eight(std::array::from_fn(|i| dealt(i + 8))))
    }

    #[inline(always)]
    fn reduce_sum(self, a: Eight) -> f32 {
        let [a, b, c, d, e, f, g, h] = a.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }

    #[inline(always)]
    fn reduce_max(self, a: Eight) -> f32 {
        a.0.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}
