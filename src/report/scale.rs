//! From values to positions on paper, and round numbers to write along an axis.

/// A straight or logarithmic axis.
pub(super) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    log: bool,
}

impl Scale {
    /// Values from `low` to `high` on positions `from` to `to`. With `log`, both values must be
    /// positive.
    pub(super) fn new((low, high): (f64, f64), (from, to): (f64, f64), log: bool) -> Self {
        Scale { low, high, from, to, log }
    }

    /// The position of a value; of one beyond the axis, the end that is nearer.
    pub(super) fn at(&self, value: f64) -> f64 {
        let on = |x: f64| if self.log { x.ln() } else { x };
        let share = (on(value) - on(self.low)) / (on(self.high) - on(self.low));
        // The logarithm of something negative is NaN: it is at the lower end.
        let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
        self.from + share * (self.to - self.from)
    }

    /// About `count` round values on the axis, with their texts.
    pub(super) fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        let mut values = if self.log { self.decades(count) } else { Vec::new() };
        if values.len() < 2 {
            values = self.multiples(count);
        }
        values.into_iter().map(|value| (value, tick_text(value))).collect()
    }

    /// Multiples of 1, 2 or 5 times a power of ten.
    fn multiples(&self, count: usize) -> Vec<f64> {
        let raw = (self.high - self.low) / count as f64;
        let power = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= raw);
        let Some(step) = step.filter(|step| step.is_normal()) else { return vec![self.low] };
        let (first, last) = ((self.low / step).ceil() as i64, (self.high / step).floor() as i64);
        // Rounded once more, because 3 * 0.1 is not 0.3 to the last digit.
        let round = |value: f64| format!("{value:.12}").parse().unwrap_or(value);
        (first..=last).map(|i| round(i as f64 * step)).filter(|v| *v != 0.0 || !self.log).collect()
    }

    /// 1, 2 and 5 times powers of ten, or as many of them as there is room for.
    fn decades(&self, count: usize) -> Vec<f64> {
        let powers = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let fits = |value: &f64| (self.low..=self.high).contains(value);
        let all = |of: &[f64]| -> Vec<f64> {
            let values = powers.clone().flat_map(|p| of.iter().map(move |m| m * 10f64.powi(p)));
            values.filter(fits).collect()
        };
        let finest = [&[1.0, 2.0, 5.0][..], &[1.0, 3.0], &[1.0]].map(all);
        let mut values = finest.into_iter().find(|values| values.len() <= count + 1);
        if values.is_none() {
            let every = all(&[1.0]);
            let stride = every.len().div_ceil(count);
            values = Some(every.into_iter().step_by(stride).collect());
        }
        values.unwrap_or_default()
    }
}

/// A round number without needless digits.
fn tick_text(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        1e-4..1e6 => {
            let text = format!("{value:.6}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        _ => format!("{value:.0e}"),
    }
}

/// The smallest interval around the finite ones of `values`, a little larger; `None` if there are
/// none.
pub(super) fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let finite = values.filter(|value| value.is_finite());
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    (low <= high).then_some((low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(low: f64, high: f64, log: bool) -> Vec<String> {
        let scale = Scale::new((low, high), (0.0, 1.0), log);
        scale.ticks(5).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(texts(0.0, 1.0, false), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(texts(1.0, 19.0, false), ["5", "10", "15"]);
        assert_eq!(texts(0.98, 0.991, false), ["0.98", "0.985", "0.99"]);
        assert_eq!(texts(0.004, 0.5, true), ["0.01", "0.03", "0.1", "0.3"]);
        assert_eq!(texts(0.03, 0.5, true), ["0.05", "0.1", "0.2", "0.5"]);
        assert_eq!(texts(1e-9, 1e9, true), ["1e-9", "1e-5", "0.1", "1000", "1e7"]);
        assert_eq!(texts(0.31, 0.34, true), ["0.31", "0.32", "0.33", "0.34"]);
    }

    #[test]
    fn positions_stay_on_the_axis() {
        let scale = Scale::new((0.01, 1.0), (100.0, 0.0), true);
        assert!((scale.at(0.1) - 50.0).abs() < 1e-9);
        assert_eq!(
            [-1.0, 0.0, 0.01, 1.0, 9.0].map(|v| scale.at(v)),
            [100.0, 100.0, 100.0, 0.0, 0.0]
        );
    }
}
