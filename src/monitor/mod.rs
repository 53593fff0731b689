//! Early stopping: a state machine that looks at evaluations and says when to stop, and why.
//!
//! ```
//! use ferrotape::monitor::{EarlyStopping, Monitor, Observation};
//!
//! let mut monitor = Monitor::new(EarlyStopping::patience(3))?;
//! let mut stopped = None;
//! for (epoch, loss) in (1..).zip([1.0, 0.9, 0.95, 0.96, 0.97]) {
//!     let verdict = monitor.observe(Observation::new(epoch, loss));
//!     if let Some(reason) = verdict.stop_reason() {
//!         stopped = Some((epoch, reason.to_string()));
//!         break;
//!     }
//! }
//! let (epoch, reason) = stopped.unwrap();
//! assert_eq!(epoch, 5);
//! assert_eq!(monitor.best().unwrap().epoch, 2);
//! assert_eq!(
//!     reason,
//!     "valid_loss has not improved for 3 evaluations (patience 3); \
//!      the last real improvement was 0.9000 at epoch 2"
//! );
//! # Ok::<(), ferrotape::Error>(())
//! ```
//!
//! # The idea
//!
//! The monitor is a pure fold over the history of evaluations:
//!
//! ```text
//! state = fold(specification, history)        no clock, no files, no randomness
//! ```
//!
//! Everything else follows. A resumed run derives the state from the recorded history instead of
//! trusting a stored counter, also under a changed specification ([`Monitor::replay`]); and what
//! another rule would have done is known without training again ([`compare`]).
//!
//! # Who is silenced when
//!
//! |                  | patience, paired, gl, pq, up, correlation, divergence | target | budget, NaN |
//! |------------------|--------|--------|-------|
//! | warm-up, grace   | silent | speaks | speaks |
//! | `min_epochs`     | silent | silent | speaks |

mod compare;
mod correlation;
mod criterion;
mod diagnosis;
mod float;
mod fold;
mod limits;
mod log;
mod observation;
mod parse;
mod patience;
mod plateau;
mod prechelt;
mod rule;
mod series;
mod spec;
mod tracker;
mod verdict;
mod warnings;

pub use compare::{Comparison, compare, verdicts};
pub use diagnosis::{Condition, Diagnosis};
pub use fold::LR_JUMP;
pub use log::read_log;
pub use observation::{Observation, TRAIN_LOSS, VALID_LOSS};
pub(crate) use plateau::Plateau;
pub use rule::{Budget, MinDelta, Mode, Rule};
pub use spec::{EarlyStopping, NanPolicy, Smoothing};
pub use tracker::Best;
pub use verdict::{Decision, Reading, StopReason, Verdict};
pub use warnings::TrainingPlan;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use fold::State;

/// A specification at work: the history so far and what follows from it.
///
/// Serialized as specification and history alone; reading it back derives the state anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Recorded")]
pub struct Monitor {
    spec: EarlyStopping,
    history: Vec<Observation>,
    #[serde(skip)]
    state: State,
    #[serde(skip)]
    last: Option<Verdict>,
}

/// What a serialized monitor holds.
#[derive(Deserialize)]
struct Recorded {
    spec: EarlyStopping,
    history: Vec<Observation>,
}

impl TryFrom<Recorded> for Monitor {
    type Error = crate::error::Error;

    fn try_from(recorded: Recorded) -> Result<Monitor> {
        Monitor::replay(recorded.spec, recorded.history)
    }
}

impl Monitor {
    /// A monitor that has seen nothing.
    ///
    /// # Errors
    ///
    /// Those of [`EarlyStopping::check`].
    pub fn new(spec: EarlyStopping) -> Result<Monitor> {
        spec.check()?;
        let state = State::new(&spec);
        Ok(Monitor { spec, history: Vec::new(), state, last: None })
    }

    /// The monitor that has observed exactly `history`: how a run is resumed.
    ///
    /// # Errors
    ///
    /// Those of [`EarlyStopping::check`].
    pub fn replay(
        spec: EarlyStopping,
        history: impl IntoIterator<Item = Observation>,
    ) -> Result<Monitor> {
        let mut monitor = Monitor::new(spec)?;
        for observation in history {
            monitor.observe(observation);
        }
        Ok(monitor)
    }

    /// Takes in one evaluation and judges the run. May go on after a stop: verdicts are never
    /// latched.
    pub fn observe(&mut self, observation: Observation) -> Verdict {
        self.history.push(observation);
        let verdict = self.state.step(&self.spec, &self.history);
        self.last = Some(verdict.clone());
        verdict
    }

    /// The specification.
    pub fn spec(&self) -> &EarlyStopping {
        &self.spec
    }

    /// Every evaluation observed, oldest first.
    pub fn history(&self) -> &[Observation] {
        &self.history
    }

    /// The best evaluation so far: the lowest (for `max`: highest) raw finite value, the earliest
    /// one on ties.
    pub fn best(&self) -> Option<Best> {
        self.state.best
    }

    /// The verdict on the last evaluation. After a replay it says whether the run had ended.
    pub fn last(&self) -> Option<&Verdict> {
        self.last.as_ref()
    }
}
