//! What the kernel tests share: numbers, guarded buffers, comparisons, every ISA.
#![allow(dead_code)] // each test binary uses its own part

use ferrotape_kernels::{
    Write,
    isa::{Isa, with_isa},
};

/// Runs `f` once for every instruction set of this machine.
pub(crate) fn on_every_isa(f: impl Fn()) {
    for isa in Isa::available() {
        with_isa(isa, &f);
    }
}

/// Runs `f` in rayon pools of several sizes, on every ISA, and checks that the bits agree.
pub(crate) fn same_bits_for_any_thread_count(f: impl Fn() -> Vec<f32> + Sync) {
    for isa in Isa::available() {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| with_isa(isa, || f().iter().map(|v| v.to_bits()).collect::<Vec<_>>()))
        };
        let expected = run(1);
        for threads in [2, 3, 4, 7, 16] {
            assert!(run(threads) == expected, "{isa:?}: {threads} threads changed the bits");
        }
    }
}

/// Numbers in [-1, 1), a different sequence for each seed (SplitMix64).
pub(crate) fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let next = |_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(next).collect()
}

/// Widens to the oracle's precision.
pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

/// Runs `f` on a buffer with the given content, between canaries that must survive.
pub(crate) fn guarded<T: Copy + PartialEq + std::fmt::Debug>(
    content: &[T],
    canary: T,
    f: impl FnOnce(&mut [T]),
) -> Vec<T> {
    const GUARD: usize = 64;
    let mut buffer = vec![canary; GUARD];
    buffer.extend_from_slice(content);
    buffer.extend_from_slice(&[canary; GUARD]);
    let end = GUARD + content.len();
    f(&mut buffer[GUARD..end]);
    let outside = buffer[..GUARD].iter().chain(&buffer[end..]);
    assert!(outside.copied().all(|v| v == canary), "wrote outside of its buffer");
    buffer[GUARD..end].to_vec()
}

/// Runs a kernel that overwrites a buffer of `len` values: it must not see the old content.
pub(crate) fn output(len: usize, f: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let y = guarded(&vec![f32::NAN; len], -7e33, f);
    assert!(!y.iter().any(|v| v.abs() == 7e33));
    y
}

/// Runs a kernel with `Write::Set` on garbage and with `Write::Add` on ones, checks that they
/// differ by those ones, and returns what `Set` wrote.
pub(crate) fn both_writes(len: usize, f: impl Fn(&mut [f32], Write)) -> Vec<f32> {
    let set = output(len, |dx| f(dx, Write::Set));
    let add = guarded(&vec![1.0; len], -7e33, |dx| f(dx, Write::Add));
    for (i, (&set, &add)) in set.iter().zip(&add).enumerate() {
        let error = (f64::from(add) - f64::from(set) - 1.0).abs();
        let bound = 2e-7 * (2.0 + f64::from(set).abs());
        let same = set.is_nan() && add.is_nan() || set.is_infinite() && add == set;
        assert!(error <= bound || same, "[{i}]: Set {set}, Add to 1 {add}");
    }
    set
}

/// Checks every element: NaN and infinities exactly, others within `absolute + relative * |expected|`.
#[track_caller]
pub(crate) fn assert_close(actual: &[f32], expected: &[f64], absolute: f64, relative: f64) {
    assert_eq!(actual.len(), expected.len());
    for (i, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        let fine = if e.is_finite() {
            (f64::from(a) - e).abs() <= absolute + relative * e.abs()
        } else {
            a.is_nan() && e.is_nan() || f64::from(a) == e
        };
        assert!(fine, "[{i}]: {a} instead of {e}");
    }
}

/// The distance of `actual` from `expected` in units of the last place of an `f32` near `expected`.
pub(crate) fn ulps(actual: f32, expected: f64) -> f64 {
    let rounded = expected as f32;
    if actual == rounded || actual.is_nan() && rounded.is_nan() {
        return if rounded.is_finite() {
            ((f64::from(actual) - expected) / ulp(rounded)).abs()
        } else {
            0.0
        };
    }
    ((f64::from(actual) - expected) / ulp(rounded)).abs()
}

/// The gap between `x` and the next `f32` away from zero.
fn ulp(x: f32) -> f64 {
    let x = x.abs().min(f32::MAX);
    f64::from(f32::from_bits(x.to_bits().max(1)))
        - f64::from(f32::from_bits(x.to_bits().max(1) - 1))
}

/// <a, b> in f64.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}
