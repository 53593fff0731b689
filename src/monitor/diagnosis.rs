//! What the curves look like, whatever the rules decide, and what can be done about it.
//!
//! ```text
//! fit a line through the last WINDOW finite values            -> trend, noise (residual sd)
//! excess = mean of the last 3 values - best value
//!
//! the last value is not finite                                 diverging
//! fewer than 4 finite values                                   starting
//! excess beyond the noise and over 2%, trend not falling:
//!     training loss rose by over 20% since the best            diverging
//!     (unknown, and value over twice the first one             diverging)
//!     training loss fell since the best, or is unknown         overfitting, severe over 10%
//! trend falls beyond its error and over 0.1% per evaluation    learning
//! noise over 5% of the level                                   noisy
//! otherwise                                                    plateau
//! ```

use std::fmt;

use serde::Serialize;

use super::observation::Observation;
use super::series::Series;
use super::tracker::Best;

/// How many evaluations a diagnosis looks back.
const WINDOW: usize = 8;

/// A description of the last evaluations.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Diagnosis {
    /// In one word.
    pub condition: Condition,
    /// How much worse than the best value the mean of the last three is, in percent of the best.
    pub percent_above_best: Option<f64>,
    /// Change of the monitored metric per evaluation, in its own sign and unit.
    pub trend: Option<f64>,
    /// Standard deviation of the metric around that trend.
    pub noise: Option<f64>,
    /// `valid_loss - train_loss`.
    pub gap: Option<f64>,
    /// Change of the gap per evaluation.
    pub gap_trend: Option<f64>,
}

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Condition {
    /// Too few evaluations to say.
    Starting,
    /// The metric improves.
    Learning,
    /// The metric stands still.
    Plateau,
    /// The metric jumps about so much that no trend can be seen.
    Noisy,
    /// The metric is clearly worse than its best while the training loss went on falling.
    MildOverfitting,
    /// The same, by more than a tenth.
    SevereOverfitting,
    /// Training itself gets worse, or a value is not finite.
    Diverging,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Condition::Starting => "starting",
            Condition::Learning => "learning",
            Condition::Plateau => "plateau",
            Condition::Noisy => "noisy",
            Condition::MildOverfitting => "mild overfitting",
            Condition::SevereOverfitting => "severe overfitting",
            Condition::Diverging => "diverging",
        })
    }
}

impl Diagnosis {
    /// What a beginner can do now.
    pub fn advice(&self) -> &'static str {
        match self.condition {
            Condition::Starting => "Too early to tell: train on.",
            Condition::Learning => "The model still gets better on new data: train on.",
            Condition::Plateau if self.gap_trend.is_some_and(|trend| trend > 0.0) => {
                "The validation value stands still while the training loss falls on: from here the \
                 model mostly memorises. Stop, or add data, augmentation, weight decay or dropout."
            }
            Condition::Plateau => {
                "Nothing moves any more: try a lower learning rate; if that does not help, the \
                 model has learnt what it can, and a larger one or better inputs are next."
            }
            Condition::Noisy => {
                "The ups and downs hide the trend: use more validation examples, a lower learning \
                 rate or larger batches; until then more patience, smoothing or min_delta = auto."
            }
            Condition::MildOverfitting => {
                "The model begins to memorise the training data: the best weights are already \
                 behind. Stop soon, or add data, augmentation, weight decay or dropout."
            }
            Condition::SevereOverfitting => {
                "The model memorises the training data and gets worse on new data: stop and take \
                 the best weights. Then add data or augmentation, stronger weight decay or \
                 dropout, or use a smaller model."
            }
            Condition::Diverging => {
                "Training gets worse instead of better: go back to the best weights with a learning \
                 rate ten times lower, clip the gradients, and check the inputs for NaN or values \
                 far from 0."
            }
        }
    }
}

/// Describes the end of `history`; `watched` is the monitored metric.
pub(super) fn diagnose(history: &[Observation], watched: &Series, best: Option<Best>) -> Diagnosis {
    let window = &history[history.len().saturating_sub(WINDOW)..];
    let values = finite(window, |seen| seen.value(&watched.metric).map(|v| watched.mode.signed(v)));
    let train = finite(window, |seen| seen.train_loss);
    let gaps = finite(window, |seen| Some(seen.valid_loss - seen.train_loss?));
    let mut diagnosis = Diagnosis {
        condition: Condition::Starting,
        percent_above_best: None,
        trend: None,
        noise: None,
        gap: window.last().and_then(|now| Some(now.valid_loss - now.train_loss?)),
        gap_trend: Line::through(&gaps).map(|line| line.slope),
    };
    diagnosis.gap = diagnosis.gap.filter(|gap| gap.is_finite());
    if watched.signed.is_none() {
        diagnosis.condition = Condition::Diverging;
        return diagnosis;
    }
    let (Some(line), Some(best)) = (Line::through(&values), best) else { return diagnosis };

    let lowest = watched.mode.signed(best.value);
    let excess = mean_of_last(&values, 3) - lowest;
    let percent = 100.0 * excess / lowest.abs().max(f64::MIN_POSITIVE);
    let level = values.iter().map(|(_, v)| v.abs()).sum::<f64>() / values.len() as f64;
    let train_at_best = history[best.index].train_loss.filter(|loss| loss.is_finite());
    let train =
        train_at_best.filter(|_| !train.is_empty()).map(|then| (then, mean_of_last(&train, 3)));
    let worse = line.slope > 0.0 && excess > 2.0 * line.noise && percent > 2.0;
    let doubled = || {
        let first =
            finite(history, |seen| seen.value(&watched.metric)).first().map(|point| point.1);
        let first = watched.mode.signed(first.unwrap_or(f64::NAN));
        watched.mode.signed(watched.raw) > first + first.abs()
    };

    diagnosis.percent_above_best = Some(percent);
    diagnosis.trend = Some(watched.mode.signed(line.slope));
    diagnosis.noise = Some(line.noise);
    diagnosis.condition = match train {
        Some((then, now)) if worse && now - then > 0.2 * then.abs() => Condition::Diverging,
        None if worse && doubled() => Condition::Diverging,
        _ if worse && train.is_none_or(|(then, now)| now < then) => {
            if percent > 10.0 {
                Condition::SevereOverfitting
            } else {
                Condition::MildOverfitting
            }
        }
        _ if line.slope < -2.0 * line.slope_error && line.slope < -1e-3 * level => {
            Condition::Learning
        }
        _ if line.noise > 0.05 * level => Condition::Noisy,
        _ => Condition::Plateau,
    };
    diagnosis
}

/// The finite values of a quantity with their positions in the window.
fn finite(window: &[Observation], of: impl Fn(&Observation) -> Option<f64>) -> Vec<(f64, f64)> {
    let values = window.iter().enumerate();
    values
        .filter_map(|(t, seen)| of(seen).filter(|v| v.is_finite()).map(|v| (t as f64, v)))
        .collect()
}

fn mean_of_last(points: &[(f64, f64)], n: usize) -> f64 {
    let last = &points[points.len().saturating_sub(n)..];
    last.iter().map(|(_, v)| v).sum::<f64>() / last.len() as f64
}

/// A least-squares line.
struct Line {
    slope: f64,
    /// Standard error of the slope.
    slope_error: f64,
    /// Standard deviation around the line, with n - 2 degrees of freedom.
    noise: f64,
}

impl Line {
    /// `None` for fewer than four points.
    fn through(points: &[(f64, f64)]) -> Option<Line> {
        if points.len() < 4 {
            return None;
        }
        let n = points.len() as f64;
        let mean_t = points.iter().map(|(t, _)| t).sum::<f64>() / n;
        let mean_v = points.iter().map(|(_, v)| v).sum::<f64>() / n;
        let spread: f64 = points.iter().map(|(t, _)| (t - mean_t).powi(2)).sum();
        let slope = points.iter().map(|(t, v)| (t - mean_t) * (v - mean_v)).sum::<f64>() / spread;
        let residual = |&(t, v): &(f64, f64)| v - mean_v - slope * (t - mean_t);
        let squares: f64 = points.iter().map(|point| residual(point).powi(2)).sum();
        let noise = (squares / (n - 2.0)).sqrt();
        Some(Line { slope, slope_error: noise / spread.sqrt(), noise })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EarlyStopping, Mode, verdicts};
    use super::*;

    /// The diagnosis after the last of `n` evaluations with these training and validation losses.
    fn last(n: u32, losses: impl Fn(f64) -> (f64, f64)) -> Diagnosis {
        let seen = |t: u32| {
            let (train, valid) = losses(f64::from(t));
            Observation::new(u64::from(t), valid).with_train_loss(train)
        };
        let history: Vec<_> = (1..=n).map(seen).collect();
        verdicts(&EarlyStopping::patience(99), &history).unwrap().pop().unwrap().diagnosis
    }

    /// Alternates with period 2 and a slower beat: noise without a random generator.
    fn jitter(t: f64) -> f64 {
        (2.4 * t).sin() + (4.1 * t).cos()
    }

    fn condition(n: u32, losses: impl Fn(f64) -> (f64, f64)) -> Condition {
        last(n, losses).condition
    }

    #[test]
    fn each_condition_has_its_curve() {
        let decay = |t: f64| (-0.1 * t).exp();
        assert_eq!(condition(3, |t| (decay(t), decay(t))), Condition::Starting);
        assert_eq!(condition(20, |t| (decay(t), 0.1 + decay(t))), Condition::Learning);
        assert_eq!(condition(20, |_| (0.5, 0.6)), Condition::Plateau);
        assert_eq!(condition(20, |t| (0.5, 0.6 + 0.001 * jitter(t))), Condition::Plateau);
        assert_eq!(condition(20, |t| (0.5, 0.6 + 0.1 * jitter(t))), Condition::Noisy);
        let u_shape = |t: f64| 0.5 + 0.0005 * (t - 10.0).powi(2);
        assert_eq!(condition(18, |t| (decay(t), u_shape(t))), Condition::MildOverfitting);
        assert_eq!(condition(30, |t| (decay(t), u_shape(t))), Condition::SevereOverfitting);
        assert_eq!(condition(30, |t| (u_shape(t), u_shape(t))), Condition::Diverging);
        assert_eq!(
            condition(9, |t| (0.1, if t > 8.0 { f64::NAN } else { 0.1 })),
            Condition::Diverging
        );
    }

    #[test]
    fn an_excess_within_twice_the_noise_is_no_overfitting() {
        // Ups and downs of 0.1 around a line that rises by `slope`: noise 0.113, and an excess of
        // 1.7 and 2.2 times that.
        let zigzag = |slope: f64| {
            let side = |t: f64| if t % 2.0 == 0.0 { 0.1 } else { -0.1 };
            last(8, |t| (1.0 / t, 1.0 + slope * (t - 1.0) + side(t)))
        };
        assert_eq!(zigzag(0.01).condition, Condition::Noisy);
        assert_eq!(zigzag(0.02).condition, Condition::SevereOverfitting);
        assert!((zigzag(0.01).noise.unwrap() - 0.113).abs() < 1e-3);
    }

    #[test]
    fn without_a_training_loss_only_an_explosion_is_divergence() {
        let end = |valid: fn(f64) -> f64| {
            let history: Vec<_> = (1..=12).map(|t| Observation::new(t, valid(t as f64))).collect();
            let mut all = verdicts(&EarlyStopping::patience(99), &history).unwrap();
            all.pop().unwrap().diagnosis.condition
        };
        assert_eq!(end(|t| 1.0 + 0.02 * t), Condition::SevereOverfitting);
        assert_eq!(end(|t| 1.0 + 0.2 * t), Condition::Diverging);
    }

    #[test]
    fn numbers_are_in_the_metrics_own_sign() {
        let history: Vec<_> = (1..=6)
            .map(|t| Observation::new(t, 1.0).with_metric("accuracy", 0.5 + 0.05 * t as f64))
            .collect();
        let spec = EarlyStopping::patience(9).monitor("accuracy").mode(Mode::Max);
        let diagnosis = verdicts(&spec, &history).unwrap().pop().unwrap().diagnosis;
        assert_eq!(diagnosis.condition, Condition::Learning);
        assert!((diagnosis.trend.unwrap() - 0.05).abs() < 1e-12);
        // The mean of 0.70 0.75 0.80 lies 0.05 below the best 0.80.
        assert!((diagnosis.percent_above_best.unwrap() - 6.25).abs() < 1e-9);
    }

    #[test]
    fn the_gap_and_its_trend() {
        let diagnosis = last(10, |t| (1.0 - 0.05 * t, 1.0));
        assert!((diagnosis.gap.unwrap() - 0.5).abs() < 1e-12);
        assert!((diagnosis.gap_trend.unwrap() - 0.05).abs() < 1e-12);
        assert_eq!(diagnosis.condition, Condition::Plateau);
        assert!(diagnosis.advice().contains("memorises"));
        assert!(last(10, |_| (1.0, 1.0)).advice().contains("lower learning rate"));
    }
}
