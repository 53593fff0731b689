//! What other rules would have done on a recorded run: how early stopping is itself evaluated.

use serde::Serialize;

use super::float;
use super::fold::State;
use super::observation::Observation;
use super::spec::EarlyStopping;
use super::tracker::Best;
use super::verdict::{StopReason, Verdict};
use crate::error::Result;

/// One rule on one recorded run.
///
/// ```
/// use ferrotape::monitor::{EarlyStopping, Observation, compare};
///
/// let losses = [1.0, 0.8, 0.85, 0.9, 0.7, 0.75, 0.8, 0.9];
/// let history: Vec<_> = (1..).zip(losses).map(|(e, loss)| Observation::new(e, loss)).collect();
/// let [hasty, patient] = [EarlyStopping::patience(2), EarlyStopping::patience(3)];
/// let found = compare(&[hasty, patient], &history)?;
/// assert_eq!((found[0].stop_epoch, found[0].best_epoch), (Some(4), Some(2)));
/// assert_eq!((found[1].stop_epoch, found[1].best_epoch), (Some(8), Some(5)));
/// assert!((found[0].regret.unwrap() - 0.1).abs() < 1e-12);
/// assert_eq!((found[0].saved, found[1].saved), (0.5, 0.0));
/// # Ok::<(), ferrotape::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The specification's text form.
    pub rule: String,
    /// Epoch of the evaluation at which it would have stopped; `None` if it never would.
    pub stop_epoch: Option<u64>,
    /// Epoch of the best evaluation it would have found by then.
    pub best_epoch: Option<u64>,
    /// The monitored value there.
    #[serde(with = "float::optional")]
    pub best_value: Option<f64>,
    /// How much worse that is than the best value of the whole run, in the metric's unit; never
    /// negative, 0 if nothing was missed. `None` if no value found by then was finite.
    #[serde(with = "float::optional")]
    pub regret: Option<f64>,
    /// The share of the run's training that it would have saved, from 0 to 1: of its steps if they
    /// were recorded, else of its epochs.
    pub saved: f64,
    /// Why it would have stopped. With [`StopReason::Missing`] the rule could not be applied to
    /// this history at all, and `stop_epoch` is `None`.
    pub reason: Option<StopReason>,
}

/// Runs each specification over the same recorded history.
///
/// # Errors
///
/// Those of [`EarlyStopping::check`] for any of the specifications.
pub fn compare(specs: &[EarlyStopping], history: &[Observation]) -> Result<Vec<Comparison>> {
    specs.iter().map(|spec| evaluate(spec, history)).collect()
}

fn evaluate(spec: &EarlyStopping, history: &[Observation]) -> Result<Comparison> {
    let all = verdicts(spec, history)?;
    let best_of_all = all.last().and_then(|verdict| verdict.best);
    let stop = all.iter().position(Verdict::should_stop);
    let reason = stop.and_then(|index| all[index].stop_reason().cloned());
    let stop = stop.filter(|_| !matches!(reason, Some(StopReason::Missing { .. })));

    let seen = stop.map_or(history.len(), |index| index + 1);
    let found: Option<Best> = seen.checked_sub(1).and_then(|index| all[index].best);
    let signed = |best: Best| spec.direction().signed(best.value);
    Ok(Comparison {
        rule: spec.to_string(),
        stop_epoch: stop.map(|index| history[index].epoch),
        best_epoch: found.map(|best| best.epoch),
        best_value: found.map(|best| best.value),
        regret: found.zip(best_of_all).map(|(found, best)| signed(found) - signed(best)),
        saved: stop.map_or(0.0, |index| share_after(index, history)),
        reason,
    })
}

/// The share of the training that lies after the evaluation at `index`.
fn share_after(index: usize, history: &[Observation]) -> f64 {
    let (here, end) = (&history[index], &history[history.len() - 1]);
    // Step 0 means that steps were not recorded.
    let stepped = here.step > 0 && end.step > 0;
    let [here, end] = [here, end].map(|seen| if stepped { seen.step } else { seen.epoch });
    end.saturating_sub(here) as f64 / end.max(1) as f64
}

/// Every verdict that a monitor gives on this history, one for each observation, also after the
/// first stop.
///
/// # Errors
///
/// Those of [`EarlyStopping::check`].
pub fn verdicts(spec: &EarlyStopping, history: &[Observation]) -> Result<Vec<Verdict>> {
    spec.check()?;
    let mut state = State::new(spec);
    Ok((1..=history.len()).map(|seen| state.step(spec, &history[..seen])).collect())
}
