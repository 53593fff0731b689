//! How often patience has run out: for whoever answers a plateau with something else than the end
//! of training, such as a lower learning rate.

use super::criterion::{Moment, Outcome};
use super::observation::Observation;
use super::patience::Patience;
use super::rule::{MinDelta, Mode};
use super::series::Series;
use super::spec::Smoothing;

/// What counts as a plateau: the same as for [`Rule::Patience`](super::Rule::Patience).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plateau {
    pub(crate) metric: String,
    pub(crate) mode: Mode,
    /// Bad evaluations that make a plateau; at least 1.
    pub(crate) patience: u32,
    pub(crate) min_delta: MinDelta,
    /// Evaluations after a plateau that do not count as bad.
    pub(crate) cooldown: u32,
}

impl Plateau {
    /// The number of plateaus in `history`. After each one the counting of bad evaluations begins
    /// anew; the anchor stays, so that only what is better than ever before is an improvement.
    pub(crate) fn count(&self, history: &[Observation]) -> u32 {
        let mut series = Series::new(&self.metric, self.mode, Smoothing::None);
        let mut rule = Patience::new(self.patience, self.min_delta);
        let (mut plateaus, mut rest) = (0, 0u32);
        for (index, now) in history.iter().enumerate() {
            series.read(now);
            let moment = Moment {
                history: &history[..=index],
                metric: &self.metric,
                mode: self.mode,
                raw: series.raw,
                signed: series.signed,
                counts: rest == 0,
            };
            rest = rest.saturating_sub(1);
            if let Outcome::Fires(_) = rule.judge(&moment).outcome {
                plateaus += 1;
                rule.anchor.bad = 0;
                rest = self.cooldown;
            }
        }
        plateaus
    }
}
