//! The two rules that count evaluations since an anchor: patience, whose idea of a significant
//! improvement is a margin, and paired patience, whose idea is a statistical test.
//!
//! ```text
//! if the evaluation improves significantly on the anchor:  anchor = here, bad = 0
//! else if it counts (no warm-up, no grace):                bad += 1
//! stop when bad >= patience
//! ```

use super::criterion::{Finding, Moment};
use super::observation::mean_and_se;
use super::rule::MinDelta;
use super::tracker::Anchor;
use super::verdict::StopReason;

/// State of [`Rule::Patience`](super::Rule::Patience).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Patience {
    pub(super) patience: u32,
    min_delta: MinDelta,
    pub(super) anchor: Anchor,
}

impl Patience {
    pub(super) fn new(patience: u32, min_delta: MinDelta) -> Self {
        Patience { patience, min_delta, anchor: Anchor::new() }
    }

    pub(super) fn judge(&mut self, moment: &Moment) -> Finding {
        let threshold = f64::from(self.patience);
        match moment.signed {
            Some(signed) if self.anchor.improved_by(signed) => {
                let delta = match self.min_delta {
                    MinDelta::Absolute(delta) => delta,
                    MinDelta::Relative(fraction) => fraction * signed.abs(),
                    MinDelta::Auto => match moment.now().standard_error() {
                        Some(error) => error,
                        None => return Finding::missing("valid_loss_se", threshold),
                    },
                };
                self.anchor.drop_at(moment.as_best(signed), signed, delta);
            }
            _ if moment.counts => self.anchor.count_bad(),
            _ => {}
        }
        let Anchor { bad, at: anchor, .. } = self.anchor;
        let reason = (moment.counts && bad >= self.patience).then(|| StopReason::Patience {
            metric: moment.metric.to_owned(),
            bad,
            patience: self.patience,
            anchor,
        });
        Finding::new(Some(f64::from(bad)), threshold, reason)
    }
}

/// State of [`Rule::Paired`](super::Rule::Paired).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Paired {
    pub(super) patience: u32,
    z: f64,
    pub(super) anchor: Anchor,
}

impl Paired {
    pub(super) fn new(patience: u32, z: f64) -> Self {
        Paired { patience, z, anchor: Anchor::new() }
    }

    pub(super) fn judge(&mut self, moment: &Moment) -> Finding {
        let threshold = f64::from(self.patience);
        let losses = &moment.now().example_losses;
        let mut t = None;
        if let Some(signed) = moment.signed {
            if losses.len() < 2 {
                return Finding::missing("example_losses", threshold);
            }
            if let Some(anchor) = self.anchor.at {
                let before = &moment.history[anchor.index].example_losses;
                if before.len() != losses.len() {
                    return Finding::missing("example_losses of the same examples", threshold);
                }
                t = paired_t(before, losses);
            }
            if self.anchor.at.is_none() || t.is_some_and(|t| t > self.z) {
                self.anchor.drop_at(moment.as_best(signed), signed, 0.0);
            } else if moment.counts {
                self.anchor.count_bad();
            }
        } else if moment.counts {
            self.anchor.count_bad();
        }
        let Anchor { bad, at: anchor, .. } = self.anchor;
        let reason =
            (moment.counts && bad >= self.patience).then_some(StopReason::NotSignificant {
                bad,
                patience: self.patience,
                t,
                z: self.z,
                anchor,
            });
        Finding::new(Some(f64::from(bad)), threshold, reason)
    }
}

/// Student's paired statistic for "the losses became lower": the mean of `before - after` over its
/// standard error. When all differences are equal it is infinite, or 0 if they are all 0.
fn paired_t(before: &[f32], after: &[f32]) -> Option<f64> {
    let differences = before.iter().zip(after).map(|(&b, &a)| f64::from(b) - f64::from(a));
    let (mean, se) = mean_and_se(differences)?;
    Some(if mean == 0.0 { 0.0 } else { mean / se })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paired_statistic_by_hand() {
        // Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), so t = 2 sqrt(3).
        let t = paired_t(&[2.0, 4.0, 6.0], &[1.0, 2.0, 3.0]).unwrap();
        assert!((t - 2.0 * 3f64.sqrt()).abs() < 1e-12);
        assert_eq!(paired_t(&[2.0, 2.0], &[1.0, 1.0]), Some(f64::INFINITY));
        assert_eq!(paired_t(&[1.0, 1.0], &[2.0, 2.0]), Some(f64::NEG_INFINITY));
        assert_eq!(paired_t(&[1.0, 2.0], &[1.0, 2.0]), Some(0.0));
        assert_eq!(paired_t(&[1.0], &[0.0]), None);
    }
}
