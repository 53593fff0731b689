//! Asking a run to stop at the next safe point.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A flag that the training loop looks at after every step and every evaluation batch.
///
/// Clones share the flag. Raising it ends the run as an interruption: the step is finished, the
/// state is saved, and the run can be resumed.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    /// 0 is "go on"; else the signal's number, or [`Interrupt::BY_PROGRAM`].
    raised: Arc<AtomicUsize>,
}

impl Interrupt {
    const BY_PROGRAM: usize = usize::MAX;

    /// A flag that nobody else holds.
    pub fn never() -> Self {
        Interrupt::default()
    }

    /// A flag raised by SIGINT and SIGTERM. A second signal ends the process at once with status
    /// `128 + signal`.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    #[cfg(feature = "signals")]
    pub fn on_signals() -> crate::Result<Self> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        use signal_hook::flag;
        use std::sync::atomic::AtomicBool;

        let interrupt = Interrupt::default();
        let armed = Arc::new(AtomicBool::new(false));
        let install = |&signal: &std::ffi::c_int| -> std::io::Result<()> {
            // Handlers run in order of registration: exit if armed, then arm, then raise.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&armed))?;
            flag::register(signal, Arc::clone(&armed))?;
            flag::register_usize(signal, Arc::clone(&interrupt.raised), signal as usize)?;
            Ok(())
        };
        [SIGINT, SIGTERM]
            .iter()
            .try_for_each(install)
            .map_err(|e| crate::Error::io("install signal handlers for", "this process", e))?;
        Ok(interrupt)
    }

    /// Asks the run to stop.
    pub fn raise(&self) {
        self.raised.store(Interrupt::BY_PROGRAM, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    pub fn requested(&self) -> bool {
        self.raised.load(Ordering::Relaxed) != 0
    }

    /// The signal that asked, if it was one.
    pub fn signal(&self) -> Option<i32> {
        match self.raised.load(Ordering::Relaxed) {
            0 | Interrupt::BY_PROGRAM => None,
            signal => i32::try_from(signal).ok(),
        }
    }
}
