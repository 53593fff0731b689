//! Which instructions this process uses.
//!
//! An [`Isa`] holds a token that only the processor check can make, so whoever has one may run code
//! compiled for it. The check happens once. `FERROTAPE_ISA=scalar|avx2|avx512|neon` in the
//! environment forces one; [`with_isa`] does so for one thread, which is how tests and benches walk
//! over all of them.
//!
//! By default the best set *that our tests run on* is used: AVX-512, else AVX2 with FMA, else the
//! portable path. NEON compiles from the same source and can be forced.

#[cfg(target_arch = "aarch64")]
use crate::simd::Neon;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::simd::{Scalar, Simd, SimdKernel};
use std::{cell::Cell, sync::OnceLock};

/// An instruction set this processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust.
    Scalar(Scalar),
    /// AVX2 and FMA (x86-64 since 2013).
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// AVX-512F.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// NEON (every aarch64).
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

thread_local! {
    static OVERRIDE: Cell<Option<Isa>> = const { Cell::new(None) };
}

impl Isa {
    /// All that this processor has, the portable path first.
    pub fn available() -> Vec<Isa> {
        let all = [
            Some(Isa::Scalar(Scalar)),
            #[cfg(target_arch = "x86_64")]
            Avx2::detect().map(Isa::Avx2),
            #[cfg(target_arch = "x86_64")]
            Avx512::detect().map(Isa::Avx512),
            #[cfg(target_arch = "aarch64")]
            Neon::detect().map(Isa::Neon),
        ];
        all.into_iter().flatten().collect()
    }

    /// The name by which `FERROTAPE_ISA` knows it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) => "neon",
        }
    }

    /// The instruction set in force on this thread: [`with_isa`]'s, else the process's. A kernel
    /// reads it once, where it is called, and takes it along to the threads it uses.
    ///
    /// # Panics
    /// If `FERROTAPE_ISA` asks for what is not there; [`Isa::from_env`] tells without a panic.
    pub fn current() -> Isa {
        OVERRIDE.get().unwrap_or_else(|| match Isa::from_env() {
            Ok(isa) => isa,
            Err(reason) => panic!("{reason}"),
        })
    }

    /// The instruction set of this process: what `FERROTAPE_ISA` asks for, else the best that is
    /// tested. Read once.
    ///
    /// # Errors
    /// If `FERROTAPE_ISA` names none, or one that this processor lacks; the text says which there
    /// are.
    pub fn from_env() -> Result<Isa, &'static str> {
        static PROCESS: OnceLock<Result<Isa, String>> = OnceLock::new();
        let found = PROCESS.get_or_init(|| match std::env::var("FERROTAPE_ISA") {
            Ok(name) => Isa::by_name(&name),
            Err(std::env::VarError::NotPresent) => Ok(Isa::default()),
            Err(e) => Err(format!("FERROTAPE_ISA: {e}")),
        });
        found.as_ref().copied().map_err(String::as_str)
    }

    fn by_name(name: &str) -> Result<Isa, String> {
        let available = Isa::available();
        available.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| {
            let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
            format!(
                "FERROTAPE_ISA={name}: this processor and build have {}; unset it to choose the \
                 best",
                names.join(", ")
            )
        })
    }

    /// Floats in a vector: [`Simd::LANES`].
    pub fn lanes(self) -> usize {
        self.dispatch(Sizes)[0]
    }

    /// Rows of the register tile: [`Simd::TILE_ROWS`].
    pub fn tile_rows(self) -> usize {
        self.dispatch(Sizes)[1]
    }

    /// Runs `kernel`, compiled for this instruction set.
    #[inline]
    pub fn dispatch<K: SimdKernel>(self, kernel: K) -> K::Output {
        match self {
            Isa::Scalar(s) => kernel.run(s),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(s) => s.dispatch(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(s) => s.dispatch(kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(s) => s.dispatch(kernel),
        }
    }
}

struct Sizes;

impl SimdKernel for Sizes {
    type Output = [usize; 2];

    #[inline(always)]
    fn run<S: Simd>(self, _s: S) -> [usize; 2] {
        [S::LANES, S::TILE_ROWS]
    }
}

impl Default for Isa {
    /// The best instruction set that the tests have run on.
    fn default() -> Isa {
        #[cfg(target_arch = "x86_64")]
        if let Some(best) =
            Avx512::detect().map(Isa::Avx512).or_else(|| Avx2::detect().map(Isa::Avx2))
        {
            return best;
        }
        Isa::Scalar(Scalar)
    }
}

/// Runs `f` with `isa` in force on this thread, and puts back what was, also when `f` panics.
pub fn with_isa<R>(isa: Isa, f: impl FnOnce() -> R) -> R {
    struct PutBack(Option<Isa>);
    impl Drop for PutBack {
        fn drop(&mut self) {
            OVERRIDE.set(self.0);
        }
    }
    let _put_back = PutBack(OVERRIDE.replace(Some(isa)));
    f()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_find_their_isa_and_others_are_reported() {
        for isa in Isa::available() {
            assert_eq!(Isa::by_name(isa.name()), Ok(isa));
        }
        let error = Isa::by_name("mmx").unwrap_err();
        assert!(error.contains("FERROTAPE_ISA=mmx") && error.contains("scalar"), "{error}");
    }

    #[test]
    fn an_override_ends_with_its_closure() {
        let before = Isa::current();
        with_isa(Isa::Scalar(Scalar), || {
            assert_eq!(Isa::current().name(), "scalar");
            let panicked =
                std::panic::catch_unwind(|| with_isa(Isa::default(), || panic!("on purpose")));
            assert!(panicked.is_err());
            assert_eq!(Isa::current().name(), "scalar");
        });
        assert_eq!(Isa::current(), before);
    }
}
