//! NEON: two registers of 4 lanes make one vector of 8, so that the 6 x 16 tile uses 24 of the 32
//! registers.

use super::{Simd, SimdKernel};
use std::arch::aarch64::*;

/// Proof that this processor has NEON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neon(());

/// Lanes 0-3 and lanes 4-7.
#[derive(Clone, Copy)]
pub struct Eight(float32x4_t, float32x4_t);

impl Neon {
    /// The proof, if it can be given.
    pub fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }

    /// Runs `kernel` compiled with NEON.
    #[inline]
    pub(crate) fn dispatch<K: SimdKernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn run_neon<K: SimdKernel>(s: Neon, kernel: K) -> K::Output {
            kernel.run(s)
        }
        // SAFETY: self proves the features.
        unsafe { run_neon(self, kernel) }
    }
}

// SAFETY (of every block below that only computes): the token proves that the processor has the
// instructions. The comment is repeated in short at each, as the lint asks.
impl Simd for Neon {
    type F32 = Eight;
    type Mask = (uint32x4_t, uint32x4_t);
    const LANES: usize = 8;
    const TILE_ROWS: usize = 6;

    #[inline(always)]
    fn splat(self, x: f32) -> Eight {
        // SAFETY: NEON is there.
        unsafe { Eight(vdupq_n_f32(x), vdupq_n_f32(x)) }
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Eight {
        // SAFETY: NEON is there; the caller promises 8 readable floats.
        unsafe { Eight(vld1q_f32(p), vld1q_f32(p.add(4))) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Eight) {
        // SAFETY: NEON is there; the caller promises 8 writable floats.
        unsafe {
            vst1q_f32(p, v.0);
            vst1q_f32(p.add(4), v.1);
        }
    }

    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> Eight {
        let mut lanes = [0.0; 8];
        for (i, lane) in lanes.iter_mut().enumerate().take(n) {
            // SAFETY: i < n, and the caller promises n readable floats.
            *lane = unsafe { *p.add(i) };
        }
        // SAFETY: an array of 8 floats.
        unsafe { self.load(lanes.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, v: Eight, n: usize) {
        let mut lanes = [0.0; 8];
        // SAFETY: an array of 8 floats.
        unsafe { self.store(lanes.as_mut_ptr(), v) };
        for (i, &lane) in lanes.iter().enumerate().take(n) {
            // SAFETY: i < n, and the caller promises n writable floats.
            unsafe { *p.add(i) = lane };
        }
    }

    #[inline(always)]
    fn add(self, a: Eight, b: Eight) -> Eight {
        // SAFETY: NEON is there.
        unsafe { Eight(vaddq_f32(a.0, b.0), vaddq_f32(a.1, b.1)) }
    }

    #[inline(always)]
    fn sub(self, a: Eight, b: Eight) -> Eight {
        // SAFETY: NEON is there.
        unsafe { Eight(vsubq_f32(a.0, b.0), vsubq_f32(a.1, b.1)) }
    }

    #[inline(always)]
    fn mul(self, a: Eight, b: Eight) -> Eight {
        // SAFETY: NEON is there.
        unsafe { Eight(vmulq_f32(a.0, b.0), vmulq_f32(a.1, b.1)) }
    }

    #[inline(always)]
    fn div(self, a: Eight, b: Eight) -> Eight {
        // SAFETY: NEON is there.
        unsafe { Eight(vdivq_f32(a.0, b.0), vdivq_f32(a.1, b.1)) }
    }

    #[inline(always)]
    fn fma(self, a: Eight, b: Eight, c: Eight) -> Eight {
        // SAFETY: NEON is there.
        unsafe { Eight(vfmaq_f32(c.0, a.0, b.0), vfmaq_f32(c.1, a.1, b.1)) }
    }

    #[inline(always)]
    fn max(self, a: Eight, b: Eight) -> Eight {
        self.select(self.gt(a, b), a, b)
    }

    #[inline(always)]
    fn min(self, a: Eight, b: Eight) -> Eight {
        self.select(self.gt(b, a), a, b)
    }

    #[inline(always)]
    fn abs(self, a: Eight) -> Eight {
        // SAFETY: NEON is there.
        unsafe { Eight(vabsq_f32(a.0), vabsq_f32(a.1)) }
    }

    #[inline(always)]
    fn neg(self, a: Eight) -> Eight {
        // SAFETY: NEON is there.
        unsafe { Eight(vnegq_f32(a.0), vnegq_f32(a.1)) }
    }

    #[inline(always)]
    fn sqrt(self, a: Eight) -> Eight {
        // SAFETY: NEON is there.
        unsafe { Eight(vsqrtq_f32(a.0), vsqrtq_f32(a.1)) }
    }

    #[inline(always)]
    fn round(self, a: Eight) -> Eight {
        // SAFETY: NEON is there.
        unsafe { Eight(vrndnq_f32(a.0), vrndnq_f32(a.1)) }
    }

    #[inline(always)]
    fn pow2(self, n: Eight) -> Eight {
        // SAFETY: NEON is there.
        unsafe {
            let half = |n| {
                let biased = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
            };
            Eight(half(n.0), half(n.1))
        }
    }

    #[inline(always)]
    fn split_exponent(self, a: Eight) -> (Eight, Eight) {
        // SAFETY: NEON is there.
        unsafe {
            let mantissa = |a| {
                let fraction = vandq_u32(vreinterpretq_u32_f32(a), vdupq_n_u32(0x007f_ffff));
                vreinterpretq_f32_u32(vorrq_u32(fraction, vdupq_n_u32(0x3f80_0000)))
            };
            let exponent = |a| {
                let biased = vreinterpretq_s32_u32(vshrq_n_u32::<23>(vreinterpretq_u32_f32(a)));
                vcvtq_f32_s32(vsubq_s32(biased, vdupq_n_s32(127)))
            };
            (Eight(mantissa(a.0), mantissa(a.1)), Eight(exponent(a.0), exponent(a.1)))
        }
    }

    #[inline(always)]
    fn gt(self, a: Eight, b: Eight) -> (uint32x4_t, uint32x4_t) {
        // SAFETY: NEON is there.
        unsafe { (vcgtq_f32(a.0, b.0), vcgtq_f32(a.1, b.1)) }
    }

    #[inline(always)]
    fn eq(self, a: Eight, b: Eight) -> (uint32x4_t, uint32x4_t) {
        // SAFETY: NEON is there.
        unsafe { (vceqq_f32(a.0, b.0), vceqq_f32(a.1, b.1)) }
    }

    #[inline(always)]
    fn select(self, mask: (uint32x4_t, uint32x4_t), a: Eight, b: Eight) -> Eight {
        // SAFETY: NEON is there.
        unsafe { Eight(vbslq_f32(mask.0, a.0, b.0), vbslq_f32(mask.1, a.1, b.1)) }
    }

    #[inline(always)]
    fn is_nan(self, a: Eight) -> (uint32x4_t, uint32x4_t) {
        // SAFETY: NEON is there.
        unsafe { (vmvnq_u32(vceqq_f32(a.0, a.0)), vmvnq_u32(vceqq_f32(a.1, a.1))) }
    }

    #[inline(always)]
    fn or(
        self,
        a: (uint32x4_t, uint32x4_t),
        b: (uint32x4_t, uint32x4_t),
    ) -> (uint32x4_t, uint32x4_t) {
        // SAFETY: NEON is there.
        unsafe { (vorrq_u32(a.0, b.0), vorrq_u32(a.1, b.1)) }
    }

    #[inline(always)]
    unsafe fn load_bytes(self, p: *const u8) -> Eight {
        // SAFETY: NEON is there; the caller promises 8 readable bytes.
        unsafe {
            let shorts = vmovl_u8(vld1_u8(p));
            let float = |half| vcvtq_f32_u32(vmovl_u16(half));
            Eight(float(vget_low_u16(shorts)), float(vget_high_u16(shorts)))
        }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut u8, v: Eight) {
        // SAFETY: NEON is there; the caller promises 8 writable bytes.
        unsafe {
            let short = |half| vmovn_u32(vcvtnq_u32_f32(half));
            vst1_u8(p, vmovn_u16(vcombine_u16(short(v.0), short(v.1))));
        }
    }

    #[inline(always)]
    fn deinterleave(self, a: Eight, b: Eight) -> (Eight, Eight) {
        // SAFETY: NEON is there.
        unsafe {
            (
                Eight(vuzp1q_f32(a.0, a.1), vuzp1q_f32(b.0, b.1)),
                Eight(vuzp2q_f32(a.0, a.1), vuzp2q_f32(b.0, b.1)),
            )
        }
    }

    #[inline(always)]
    fn interleave(self, a: Eight, b: Eight) -> (Eight, Eight) {
        // SAFETY: NEON is there.
        unsafe {
            (
                Eight(vzip1q_f32(a.0, b.0), vzip2q_f32(a.0, b.0)),
                Eight(vzip1q_f32(a.1, b.1), vzip2q_f32(a.1, b.1)),
            )
        }
    }

    #[inline(always)]
    fn reduce_sum(self, a: Eight) -> f32 {
        // SAFETY: NEON is there.
        unsafe { vaddvq_f32(vaddq_f32(a.0, a.1)) }
    }

    #[inline(always)]
    fn reduce_max(self, a: Eight) -> f32 {
        // SAFETY: NEON is there.
        unsafe { vmaxvq_f32(vmaxq_f32(a.0, a.1)) }
    }
}
