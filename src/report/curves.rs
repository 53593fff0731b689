//! What is drawn over the epochs: losses, accuracy, learning rate, the readings of the rules.

use super::Report;
use super::chart::{Chart, Mark, Series, Zone};
use crate::monitor::{Condition, Observation};
use crate::numbers::{percent, setting, short, two_digits};
use crate::trainer::Stop;

/// The curves of a report, and what is marked in all of them.
pub(super) struct Curves<'r> {
    report: &'r Report,
    xs: Vec<f64>,
    hints: Vec<String>,
}

impl<'r> Curves<'r> {
    pub(super) fn new(report: &'r Report) -> Self {
        let history = &report.history;
        let rising = history.windows(2).all(|pair| pair[0].epoch < pair[1].epoch);
        // A log of several evaluations per epoch is drawn by their number.
        let xs = (0..history.len())
            .map(|i| if rising { history[i].epoch as f64 } else { (i + 1) as f64 });
        let hints = (0..history.len()).map(|i| hint(report, i));
        Curves { report, xs: xs.collect(), hints: hints.collect() }
    }

    fn values(&self, of: impl Fn(&Observation) -> Option<f64>) -> Vec<f64> {
        self.report.history.iter().map(|seen| of(seen).unwrap_or(f64::NAN)).collect()
    }

    fn chart(&self, label: String, series: Vec<Series>, height: f64) -> Chart<'_> {
        Chart {
            label,
            xs: &self.xs,
            series,
            zones: Vec::new(),
            marks: Vec::new(),
            threshold: None,
            ticks: Vec::new(),
            unit: "",
            log: false,
            height,
            hints: &[],
        }
    }

    /// Training and validation loss, with everything that happened.
    pub(super) fn loss(&self) -> String {
        let valid = Series {
            name: "validation".into(),
            class: "valid",
            values: self.values(|seen| Some(seen.valid_loss)),
            errors: self.values(Observation::standard_error),
            steps: false,
        };
        let train = self.values(|seen| seen.train_loss);
        let mut series = vec![valid];
        if train.iter().any(|loss| loss.is_finite()) {
            let name = "training".into();
            series.insert(
                0,
                Series { name, class: "train", values: train, errors: vec![], steps: false },
            );
        }
        let mut chart = self.chart(self.loss_label(), series, 400.0);
        chart.log = true;
        chart.hints = &self.hints;
        chart.zones = self.overfitting();
        chart.marks = self.marks();
        chart.to_html()
    }

    fn loss_label(&self) -> String {
        let last = self.report.history.last();
        let value = |of: fn(&Observation) -> Option<f64>| {
            last.and_then(of).map_or("unknown".to_owned(), short)
        };
        format!(
            "Loss over {} evaluations. At the end: training {}, validation {}.",
            self.xs.len(),
            value(|seen| seen.train_loss),
            value(|seen| Some(seen.valid_loss))
        )
    }

    /// The monitored metric, if it is not the loss, and the accuracies.
    pub(super) fn accuracy(&self) -> Option<String> {
        let percent = |name: &str| self.values(|seen| Some(100.0 * seen.value(name)?));
        let known = |values: &[f64]| values.iter().any(|value| value.is_finite());
        let curve = |name: &str, class, values| Series {
            name: name.into(),
            class,
            values,
            errors: Vec::new(),
            steps: false,
        };
        let valid = percent("accuracy");
        if !known(&valid) {
            return None;
        }
        let last = valid.last().copied().unwrap_or(f64::NAN);
        let mut series = vec![curve("validation", "valid", valid)];
        let train = percent("train_accuracy");
        if known(&train) {
            series.insert(0, curve("training", "train", train));
        }
        let mut chart =
            self.chart(format!("Accuracy. At the end: validation {last:.2}%."), series, 220.0);
        chart.unit = "%";
        Some(chart.to_html())
    }

    /// The monitored metric if it is neither a loss nor the accuracy.
    pub(super) fn metric(&self) -> Option<String> {
        let name = self.report.metric();
        if ["valid_loss", "train_loss", "accuracy", "train_accuracy"].contains(&name) {
            return None;
        }
        let values = self.values(|seen| seen.value(name));
        let series =
            Series { name: name.into(), class: "valid", values, errors: vec![], steps: false };
        Some(self.chart(format!("The monitored metric, {name}."), vec![series], 220.0).to_html())
    }

    /// The learning rate, or a sentence if it never changed.
    pub(super) fn learning_rate(&self) -> Option<String> {
        let rates = self.values(|seen| seen.lr);
        let known = rates.iter().copied().filter(|rate| rate.is_finite());
        let (low, high) = super::scale::extent(known)?;
        if low == high {
            return Some(format!("<p>It was {} throughout.</p>\n", setting(low)));
        }
        // A schedule in a few steps is labelled with them.
        let mut steps: Vec<f64> = rates.iter().copied().filter(|rate| rate.is_finite()).collect();
        steps.sort_by(f64::total_cmp);
        steps.dedup();
        if steps.len() > 6 {
            steps.clear();
        }
        let label = format!("Learning rate, from {} to {}.", setting(high), setting(low));
        let name = "rate".to_owned();
        let series = Series { name, class: "rate", values: rates, errors: vec![], steps: true };
        let mut chart = self.chart(label, vec![series], 130.0);
        chart.log = true;
        chart.ticks = steps;
        Some(chart.to_html())
    }

    /// For each rule its text and its number over the run, against its threshold.
    pub(super) fn readings(&self) -> Vec<(String, String)> {
        let verdicts = &self.report.verdicts;
        let rules = verdicts.last().map_or(0, |verdict| verdict.readings.len());
        let rule = |at: usize| {
            let reading = &verdicts.last()?.readings[at];
            let values =
                verdicts.iter().map(|verdict| verdict.readings[at].value.unwrap_or(f64::NAN));
            let series = Series {
                name: "reading".into(),
                class: "rule",
                values: values.collect(),
                errors: Vec::new(),
                steps: reading.rule.starts_with("patience"),
            };
            let label =
                format!("What {} read, against its threshold {}.", reading.rule, reading.threshold);
            let mut chart = self.chart(label, vec![series], 130.0);
            chart.threshold = Some(reading.threshold).filter(|threshold| threshold.is_finite());
            Some((reading.rule.clone(), chart.to_html()))
        };
        (0..rules).filter_map(rule).collect()
    }

    /// Best, anchor, stop and resumes.
    fn marks(&self) -> Vec<Mark> {
        let Report { history, verdicts, stop, resumed, .. } = self.report;
        let loss = |i: usize| Some(history[i].valid_loss);
        let mut marks = Vec::new();
        let mut mark = |i: usize, y: Option<f64>, class, what: &str| {
            let label = format!("{what} {}", self.xs[i]);
            marks.push(Mark { x: self.xs[i], y, class, label });
        };
        let last = verdicts.last();
        let best = last.and_then(|verdict| verdict.best).map(|best| best.index);
        let anchor = last.and_then(|verdict| verdict.anchor).map(|anchor| anchor.index);
        match (best, anchor) {
            (Some(best), Some(anchor)) if best == anchor => {
                mark(best, loss(best), "best", "best, anchor")
            }
            (best, anchor) => {
                anchor.into_iter().for_each(|at| mark(at, loss(at), "anchor", "anchor"));
                best.into_iter().for_each(|at| mark(at, loss(at), "best", "best"));
            }
        }
        let would = verdicts.iter().position(|verdict| verdict.should_stop());
        match (stop, would) {
            (Some(Stop::Early(_)), _) => mark(history.len() - 1, None, "stop", "stopped"),
            (None, Some(at)) => mark(at, None, "stop", "would stop"),
            _ => {}
        }
        if let Some(i) = history.iter().position(|seen| !seen.valid_loss.is_finite()) {
            mark(i, None, "stop", "not finite");
        }
        for &i in resumed {
            // Somewhere between two evaluations.
            let before = i.checked_sub(1).map_or(self.xs[i] - 1.0, |i| self.xs[i]);
            let x = ((before + self.xs[i]) / 2.0).max(self.xs[0]);
            marks.push(Mark { x, y: None, class: "seam", label: "resumed".into() });
        }
        marks
    }

    /// From the best evaluation so far to the last one in a row that was diagnosed as overfitting.
    fn overfitting(&self) -> Vec<Zone> {
        let mut zones: Vec<Zone> = Vec::new();
        for (verdict, &to) in self.report.verdicts.iter().zip(&self.xs) {
            let memorises = [Condition::MildOverfitting, Condition::SevereOverfitting]
                .contains(&verdict.diagnosis.condition);
            let Some(best) = verdict.best.filter(|_| memorises) else { continue };
            let from = self.xs[best.index];
            match zones.last_mut() {
                Some(zone) if zone.from == from => zone.to = to,
                _ => zones.push(Zone { from, to, class: "overfitting", label: "overfitting" }),
            }
        }
        zones
    }
}

/// What is known about evaluation `i`, in one line.
fn hint(report: &Report, i: usize) -> String {
    let (seen, verdict) = (&report.history[i], &report.verdicts[i]);
    let mut text = format!("epoch {}: validation {}", seen.epoch, short(seen.valid_loss));
    if let Some(error) = seen.standard_error() {
        text += &format!(" ± {}", two_digits(error));
    }
    if let Some(train) = seen.train_loss {
        text += &format!(", training {}", short(train));
    }
    if let Some(accuracy) = seen.value("accuracy") {
        text += &format!(", accuracy {}", percent(accuracy));
    }
    if let Some(lr) = seen.lr {
        text += &format!(", rate {}", setting(lr));
    }
    if verdict.new_best {
        text += ", new best";
    }
    format!("{text}; {}", verdict.diagnosis.condition)
}
