//! Stopping when training and validation part: the correlation of their last losses turns negative
//! (after the rolling criterion of Miseta, Fodor and Vathy-Fogarassy, "Surpassing early stopping",
//! Neurocomputing 567, 2024).

use std::collections::VecDeque;

use super::criterion::{Finding, Moment};
use super::verdict::StopReason;

/// State of [`Rule::Correlation`](super::Rule::Correlation).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Correlation {
    threshold: f64,
    k: u32,
    /// The last `k` pairs of training loss and signed value.
    pairs: VecDeque<(f64, f64)>,
}

impl Correlation {
    pub(super) fn new(threshold: f64, k: u32) -> Self {
        Correlation { threshold, k, pairs: VecDeque::new() }
    }

    pub(super) fn judge(&mut self, moment: &Moment) -> Finding {
        let Some(train_loss) = moment.now().train_loss else {
            return Finding::missing("train_loss", self.threshold);
        };
        let quiet = Finding::new(None, self.threshold, None);
        let (Some(value), true) = (moment.signed, train_loss.is_finite()) else { return quiet };
        if self.pairs.len() == self.k as usize {
            self.pairs.pop_front();
        }
        self.pairs.push_back((train_loss, value));
        if self.pairs.len() < self.k as usize {
            return quiet;
        }
        let Some(correlation) = pearson(self.pairs.iter().copied()) else { return quiet };
        // A negative correlation also arises when the training loss rises while the value falls.
        let over_time = self.pairs.iter().enumerate().map(|(t, &(train, _))| (t as f64, train));
        let learning = pearson(over_time).is_some_and(|trend| trend < 0.0);
        let fires = moment.counts && learning && correlation < self.threshold;
        let reason = fires.then(|| StopReason::Correlation {
            metric: moment.metric.to_owned(),
            correlation,
            threshold: self.threshold,
            k: self.k,
        });
        Finding::new(Some(correlation), self.threshold, reason)
    }
}

/// Pearson's correlation coefficient; `None` if one of the two does not vary.
fn pearson(pairs: impl Iterator<Item = (f64, f64)> + Clone) -> Option<f64> {
    let n = pairs.clone().count() as f64;
    let (sum_x, sum_y) = pairs.clone().fold((0.0, 0.0), |(sx, sy), (x, y)| (sx + x, sy + y));
    let (mean_x, mean_y) = (sum_x / n, sum_y / n);
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (x, y) in pairs {
        let (dx, dy) = (x - mean_x, y - mean_y);
        xx += dx * dx;
        yy += dy * dy;
        xy += dx * dy;
    }
    let scale = (xx * yy).sqrt();
    (scale > 0.0).then(|| (xy / scale).clamp(-1.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pearson_by_hand() {
        let r = |pairs: &[(f64, f64)]| pearson(pairs.iter().copied());
        assert_eq!(r(&[(1.0, 2.0), (2.0, 4.0), (3.0, 6.0)]), Some(1.0));
        assert_eq!(r(&[(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]), Some(-1.0));
        // dx = -1 0 1, dy = -1/3 2/3 -1/3: orthogonal.
        assert!(r(&[(1.0, 0.0), (2.0, 1.0), (3.0, 0.0)]).unwrap().abs() < 1e-15);
        assert_eq!(r(&[(1.0, 5.0), (2.0, 5.0)]), None);
    }
}
