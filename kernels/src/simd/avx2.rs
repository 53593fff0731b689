//! AVX2 and FMA: 8 lanes, 16 registers.

use super::{Simd, SimdKernel};
use std::arch::x86_64::*;

/// Proof that this processor has AVX2 and FMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx2(());

impl Avx2 {
    /// The proof, if it can be given.
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }

    /// Runs `kernel` compiled with AVX2 and FMA.
    #[inline]
    pub(crate) fn dispatch<K: SimdKernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma")]
        fn run_avx2<K: SimdKernel>(s: Avx2, kernel: K) -> K::Output {
            kernel.run(s)
        }
        // SAFETY: self proves the features.
        unsafe { run_avx2(self, kernel) }
    }

    /// All ones in the first `n` lanes.
    #[inline(always)]
    fn first(self, n: usize) -> __m256i {
        const ONES_THEN_ZEROS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        debug_assert!(n <= 8);
        // SAFETY: 8 - n is in 0..=8, and 8 more integers follow each of those places.
        unsafe { _mm256_loadu_si256(ONES_THEN_ZEROS.as_ptr().add(8 - n).cast()) }
    }
}

// SAFETY (of every block below that only computes): the token proves that the processor has the
// instructions. The comment is repeated in short at each, as the lint asks.
impl Simd for Avx2 {
    type F32 = __m256;
    type Mask = __m256;
    const LANES: usize = 8;
    // 6 x 16: 12 accumulators, 2 vectors of B, 1 broadcast of A: 15 of 16 registers.
    const TILE_ROWS: usize = 6;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: AVX is there.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m256 {
        // SAFETY: AVX is there; the caller promises 8 readable floats.
        unsafe { _mm256_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m256) {
        // SAFETY: AVX is there; the caller promises 8 writable floats.
        unsafe { _mm256_storeu_ps(p, v) }
    }

    #[inline(always)]
    unsafe fn stream(self, p: *mut f32, v: __m256) {
        // SAFETY: AVX is there; the caller promises 8 writable floats at an aligned address, and a
        // fence.
        unsafe { _mm256_stream_ps(p, v) }
    }

    #[inline(always)]
    fn fence(self) {
        // SAFETY: SSE is there.
        unsafe { _mm_sfence() }
    }

    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> __m256 {
        // SAFETY: AVX is there; lanes at n and beyond are masked off and not touched.
        unsafe { _mm256_maskload_ps(p, self.first(n)) }
    }

    /// In pieces of 4, 2 and 1, because AMD's masked stores are slow: 42 micro-operations on Zen 3.
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, v: __m256, n: usize) {
        debug_assert!(n <= 8);
        // SAFETY: AVX is there; the pieces add up to the n floats that the caller promises.
        unsafe {
            if n >= 8 {
                return self.store(p, v);
            }
            let (mut piece, mut p) = (_mm256_castps256_ps128(v), p);
            if n & 4 != 0 {
                _mm_storeu_ps(p, piece);
                (piece, p) = (_mm256_extractf128_ps::<1>(v), p.add(4));
            }
            if n & 2 != 0 {
                _mm_store_sd(p.cast(), _mm_castps_pd(piece));
                (piece, p) = (_mm_movehl_ps(piece, piece), p.add(2));
            }
            if n & 1 != 0 {
                _mm_store_ss(p, piece);
            }
        }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: AVX is there.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: AVX is there.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: AVX is there.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: AVX is there.
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: FMA is there.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: AVX is there.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: AVX is there.
        unsafe { _mm256_min_ps(a, b) }
    }

    #[inline(always)]
    fn abs(self, a: __m256) -> __m256 {
        // SAFETY: AVX is there.
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
    }

    #[inline(always)]
    fn neg(self, a: __m256) -> __m256 {
        // SAFETY: AVX is there.
        unsafe { _mm256_xor_ps(_mm256_set1_ps(-0.0), a) }
    }

    #[inline(always)]
    fn sqrt(self, a: __m256) -> __m256 {
        // SAFETY: AVX is there.
        unsafe { _mm256_sqrt_ps(a) }
    }

    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        // SAFETY: AVX is there.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn pow2(self, n: __m256) -> __m256 {
        // SAFETY: AVX2 is there.
        unsafe {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        }
    }

    #[inline(always)]
    fn split_exponent(self, a: __m256) -> (__m256, __m256) {
        // SAFETY: AVX2 is there.
        unsafe {
            let bits = _mm256_castps_si256(a);
            let fraction = _mm256_and_si256(bits, _mm256_set1_epi32(0x007f_ffff));
            let mantissa = _mm256_or_si256(fraction, _mm256_set1_epi32(0x3f80_0000));
            let exponent = _mm256_sub_epi32(_mm256_srli_epi32::<23>(bits), _mm256_set1_epi32(127));
            (_mm256_castsi256_ps(mantissa), _mm256_cvtepi32_ps(exponent))
        }
    }

    #[inline(always)]
    fn gt(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: AVX is there.
        unsafe { _mm256_cmp_ps::<_CMP_GT_OQ>(a, b) }
    }

    #[inline(always)]
    fn eq(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: AVX is there.
        unsafe { _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b) }
    }

    #[inline(always)]
    fn select(self, mask: __m256, a: __m256, b: __m256) -> __m256 {
        // SAFETY: AVX is there.
        unsafe { _mm256_blendv_ps(b, a, mask) }
    }

    #[inline(always)]
    fn is_nan(self, a: __m256) -> __m256 {
        // SAFETY: AVX is there.
        unsafe { _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a) }
    }

    #[inline(always)]
    fn or(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: AVX is there.
        unsafe { _mm256_or_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn load_bytes(self, p: *const u8) -> __m256 {
        // SAFETY: AVX2 is there; the caller promises 8 readable bytes.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast()))) }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut u8, v: __m256) {
        // SAFETY: AVX2 is there; the caller promises 8 writable bytes.
        unsafe {
            let wide = _mm256_cvtps_epi32(v);
            let (low, high) = (_mm256_castsi256_si128(wide), _mm256_extracti128_si256::<1>(wide));
            let shorts = _mm_packs_epi32(low, high);
            _mm_storel_epi64(p.cast(), _mm_packus_epi16(shorts, shorts));
        }
    }

    #[inline(always)]
    fn deinterleave(self, a: __m256, b: __m256) -> (__m256, __m256) {
        // SAFETY: AVX2 is there.
        unsafe {
            // Shuffles work within 128-bit halves: first give each result its half-vectors, then
            // sort those.
            let even = _mm256_castps_pd(_mm256_shuffle_ps::<0b10_00_10_00>(a, b));
            let odd = _mm256_castps_pd(_mm256_shuffle_ps::<0b11_01_11_01>(a, b));
            (
                _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(even)),
                _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(odd)),
            )
        }
    }

    #[inline(always)]
    fn interleave(self, a: __m256, b: __m256) -> (__m256, __m256) {
        // SAFETY: AVX is there.
        unsafe {
            let low = _mm256_unpacklo_ps(a, b);
            let high = _mm256_unpackhi_ps(a, b);
            (_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high))
        }
    }

    #[inline(always)]
    fn reduce_sum(self, a: __m256) -> f32 {
        // SAFETY: AVX is there.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    fn reduce_max(self, a: __m256) -> f32 {
        // SAFETY: AVX is there.
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}
