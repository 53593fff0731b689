//! A line chart as SVG, of one width.
//!
//! ```text
//!  lane     best 14        stopped 19       what is marked, above the curves: nothing overlaps
//!  0.1 |----+---------------+-------
//!      |    |  curves       |       valid   each curve is named at its end: no legend to look up
//!      +----------------------------
//!        5       10       15
//! ```

use std::fmt::Write as _;

use super::chart::{Chart, Mark, Series, Zone};
use super::html::escape;
use super::scale::{Scale, extent};
use crate::numbers::{short, trimmed};

/// Width of a letter in pixels, with a little to spare.
pub(super) const LETTER: f64 = 6.6;
const LANE: f64 = 17.0;

/// A drawing of one width.
pub(super) struct Drawing<'a> {
    chart: &'a Chart<'a>,
    class: &'static str,
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    svg: String,
}

impl<'a> Drawing<'a> {
    pub(super) fn new(
        chart: &'a Chart<'a>,
        class: &'static str,
        width: f64,
        height: f64,
        (left, right): (f64, f64),
    ) -> Self {
        Drawing { chart, class, width, height, left, right, svg: String::new() }
    }

    pub(super) fn draw(mut self) -> String {
        let chart = self.chart;
        let (first, last) = extent(chart.xs.iter().copied()).unwrap_or((0.0, 1.0));
        let pad = if first < last { 0.0 } else { 0.5 };
        let across = (self.left, self.width - self.right);
        let x = Scale::new((first - pad, last + pad), across, false);
        let rows = self.lane_rows(&x);
        let lanes = rows.iter().map(|row| row + 1).max().unwrap_or(0);
        let top = 8.0 + LANE * lanes as f64;
        let bottom = self.height - 22.0;
        let (range, log) = chart.range();
        let y = Scale::new(range, (bottom, top), log);

        let (class, width, height) = (self.class, self.width, self.height);
        let _ = writeln!(
            self.svg,
            "<svg class=\"{class}\" viewBox=\"0 0 {width} {height:.0}\" role=\"img\" \
             aria-label=\"{}\">",
            escape(&chart.label)
        );
        self.zones(&x, top, bottom);
        self.axes(&x, &y, bottom);
        self.marks(&x, &y, &rows, bottom);
        for series in &chart.series {
            self.series(series, &x, &y);
        }
        for mark in &chart.marks {
            if let Some(value) = mark.y.filter(|value| value.is_finite()) {
                let (cx, cy) = (x.at(mark.x), y.at(value));
                let class = mark.class;
                let _ = writeln!(
                    self.svg,
                    "<circle class=\"dot {class}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"5\"/>"
                );
            }
        }
        self.names(&x, &y, top, bottom);
        self.hints(&x, top, bottom);
        self.svg.push_str("</svg>\n");
        self.svg
    }

    /// In which row of the lane each mark's text has room: the lowest one that is free.
    fn lane_rows(&self, x: &Scale) -> Vec<usize> {
        let mut taken: Vec<Vec<(f64, f64)>> = Vec::new();
        let place = |mark: &Mark| {
            let (from, to) = self.text_span(x.at(mark.x), &mark.label);
            let free =
                |row: &Vec<(f64, f64)>| row.iter().all(|&(a, b)| to + 8.0 < a || b + 8.0 < from);
            let row = taken.iter().position(free).unwrap_or(taken.len());
            if row == taken.len() {
                taken.push(Vec::new());
            }
            taken[row].push((from, to));
            row
        };
        self.chart.marks.iter().map(place).collect()
    }

    /// From where to where a text reaches that is centred at `x`, or as near to it as the edges
    /// allow.
    fn text_span(&self, x: f64, text: &str) -> (f64, f64) {
        let width = LETTER * text.chars().count() as f64;
        let from = (x - width / 2.0).min(self.width - 2.0 - width).max(2.0);
        (from, from + width)
    }

    fn zones(&mut self, x: &Scale, top: f64, bottom: f64) {
        for Zone { from, to, class, label } in &self.chart.zones {
            let (from, to) = (x.at(*from), x.at(*to));
            let (width, height) = ((to - from).max(2.0), bottom - top);
            let _ = writeln!(
                self.svg,
                "<rect class=\"zone {class}\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" \
                 height=\"{height:.1}\"><title>{label}</title></rect>"
            );
            if width > LETTER * label.chars().count() as f64 + 8.0 {
                let (x, y) = (from + 6.0, bottom - 8.0);
                let _ = writeln!(
                    self.svg,
                    "<text class=\"zone-name\" x=\"{x:.1}\" y=\"{y:.1}\">{label}</text>"
                );
            }
        }
    }

    fn axes(&mut self, x: &Scale, y: &Scale, bottom: f64) {
        let (left, right) = (self.left, self.width - self.right);
        let unit = self.chart.unit;
        let mut ticks: Vec<(f64, String)> = match &self.chart.ticks[..] {
            [] => y.ticks(((self.height / 55.0) as usize).max(2)),
            given => given.iter().map(|&value| (value, trimmed(value))).collect(),
        };
        if let Some(threshold) = self.chart.threshold {
            let at = y.at(threshold);
            ticks.retain(|(value, _)| (y.at(*value) - at).abs() > 14.0);
            let _ = writeln!(
                self.svg,
                "<path class=\"threshold\" d=\"M{left} {at:.1}H{right}\"/><text class=\"limit\" \
                 x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 8.0,
                at + 4.0,
                trimmed(threshold)
            );
        }
        let mut free = f64::INFINITY;
        for (value, text) in ticks {
            let at = y.at(value);
            if (at - free).abs() < 13.0 {
                continue;
            }
            free = at;
            let _ = writeln!(
                self.svg,
                "<path class=\"grid\" d=\"M{left} {at:.1}H{right}\"/><text class=\"tick\" \
                 x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}{unit}</text>",
                left - 8.0,
                at + 4.0
            );
        }
        for (value, text) in x.ticks(((right - left) / 70.0) as usize) {
            if value.fract() != 0.0 {
                continue;
            }
            let at = x.at(value);
            let _ = writeln!(
                self.svg,
                "<text class=\"tick\" x=\"{at:.1}\" y=\"{:.1}\" \
                 text-anchor=\"middle\">{text}</text>",
                bottom + 17.0
            );
        }
        let _ = writeln!(self.svg, "<path class=\"axis\" d=\"M{left} {bottom:.1}H{right}\"/>");
        let _ = writeln!(
            self.svg,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">epoch</text>",
            left - 8.0,
            bottom + 17.0
        );
    }

    fn marks(&mut self, x: &Scale, y: &Scale, rows: &[usize], bottom: f64) {
        let top_row = rows.iter().max().copied().unwrap_or(0);
        for (mark, row) in self.chart.marks.iter().zip(rows) {
            let at = x.at(mark.x);
            let (from, to) = self.text_span(at, &mark.label);
            let text_y = 14.0 + LANE * (top_row - row) as f64;
            let end = mark.y.filter(|value| value.is_finite()).map_or(bottom, |value| y.at(value));
            let Mark { class, label, .. } = mark;
            let _ = writeln!(
                self.svg,
                "<path class=\"mark {class}\" d=\"M{at:.1} {:.1}V{end:.1}\"/><text \
                 class=\"mark-name {class}\" x=\"{:.1}\" y=\"{text_y:.1}\" \
                 text-anchor=\"middle\">{}</text>",
                text_y + 4.0,
                (from + to) / 2.0,
                escape(label)
            );
        }
    }

    fn series(&mut self, series: &Series, x: &Scale, y: &Scale) {
        let Series { class, values, errors, steps, .. } = series;
        let xs = self.chart.xs;
        let (mut line, mut alone) = (String::new(), Vec::new());
        for run in finite_runs(values) {
            let at = |i: usize| (x.at(xs[i]), y.at(values[i]));
            if !errors.is_empty() {
                let error =
                    |i: usize| errors.get(i).copied().filter(|e| e.is_finite()).unwrap_or(0.0);
                let edge = |i: usize, sign: f64| (x.at(xs[i]), y.at(values[i] + sign * error(i)));
                let upper = run.clone().map(|i| edge(i, 1.0));
                let lower = run.clone().rev().map(|i| edge(i, -1.0));
                let outline: String =
                    upper.chain(lower).map(|(x, y)| format!("{x:.1} {y:.1} ")).collect();
                let _ =
                    writeln!(self.svg, "<path class=\"band {class}\" d=\"M{}Z\"/>", outline.trim());
            }
            if run.len() == 1 {
                alone.push(at(run.start));
                continue;
            }
            for i in run.clone() {
                let (px, py) = at(i);
                match i == run.start {
                    true => _ = write!(line, "M{px:.1} {py:.1}"),
                    false if *steps => _ = write!(line, "V{py:.1}H{px:.1}"),
                    false => _ = write!(line, "L{px:.1} {py:.1}"),
                }
            }
        }
        if !line.is_empty() {
            let _ = writeln!(self.svg, "<path class=\"line {class}\" d=\"{line}\"/>");
        }
        for (cx, cy) in alone {
            let _ = writeln!(
                self.svg,
                "<circle class=\"point {class}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3.5\"/>"
            );
        }
    }

    /// Names and last values of the curves at their ends, moved apart where they would overlap.
    fn names(&mut self, x: &Scale, y: &Scale, top: f64, bottom: f64) {
        const LINE: f64 = 15.0;
        let ends = self.chart.series.iter().filter_map(|series| {
            let last = series.values.iter().rposition(|value| value.is_finite())?;
            Some((y.at(series.values[last]), last, series))
        });
        let mut ends: Vec<_> = ends.collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        // From above: each at least two lines below the one before; then from below, so that the
        // last ones stay on the paper.
        let mut at: Vec<f64> = ends.iter().map(|end| end.0).collect();
        for i in 1..at.len() {
            at[i] = at[i].max(at[i - 1] + 2.0 * LINE + 2.0);
        }
        let mut limit = bottom - LINE + 6.0;
        for at in at.iter_mut().rev() {
            *at = at.min(limit).max(top + 2.0);
            limit = *at - 2.0 * LINE - 2.0;
        }
        for ((_, last, series), at) in ends.into_iter().zip(at) {
            let Series { name, class, values, .. } = series;
            let px =
                x.at(self.chart.xs.last().copied().unwrap_or(0.0)).max(x.at(self.chart.xs[last]))
                    + 10.0;
            let value = match self.chart.unit {
                "%" => format!("{:.2}%", values[last]),
                unit if series.steps => format!("{}{unit}", trimmed(values[last])),
                unit => format!("{}{unit}", short(values[last])),
            };
            let _ = writeln!(
                self.svg,
                "<text class=\"name {class}\" x=\"{px:.1}\" y=\"{at:.1}\">{}<tspan class=\"value\" \
                 x=\"{px:.1}\" dy=\"{LINE}\">{value}</tspan></text>",
                escape(name)
            );
        }
    }

    /// Invisible columns that say what was measured where the pointer rests on them.
    fn hints(&mut self, x: &Scale, top: f64, bottom: f64) {
        let (xs, hints) = (self.chart.xs, self.chart.hints);
        if self.class != "on-page" || hints.is_empty() {
            return;
        }
        for (i, hint) in hints.iter().enumerate() {
            let here = x.at(xs[i]);
            let before = i.checked_sub(1).map_or(here - 8.0, |i| x.at(xs[i]));
            let after = xs.get(i + 1).map_or(here + 8.0, |&next| x.at(next));
            let (from, to) = ((before + here) / 2.0, (here + after) / 2.0);
            let _ = writeln!(
                self.svg,
                "<rect class=\"hint\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{:.1}\" \
                 height=\"{:.1}\"><title>{}</title></rect>",
                to - from,
                bottom - top,
                escape(hint)
            );
        }
    }
}

/// The ranges of positions without a gap.
fn finite_runs(values: &[f64]) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for (i, value) in values.iter().enumerate() {
        match runs.last_mut() {
            _ if !value.is_finite() => {}
            Some(run) if run.end == i => run.end = i + 1,
            _ => runs.push(i..i + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_broken_where_a_value_is_missing() {
        let values = [f64::NAN, 1.0, 2.0, f64::INFINITY, 3.0];
        assert_eq!(finite_runs(&values), [1..3, 4..5]);
        assert!(finite_runs(&[f64::NAN]).is_empty());
    }

    #[test]
    fn texts_in_the_lane_do_not_overlap() {
        let mark = |x: f64| Mark { x, y: None, class: "best", label: "a long label".into() };
        let chart = Chart {
            label: String::new(),
            xs: &[1.0, 100.0],
            series: Vec::new(),
            zones: Vec::new(),
            marks: vec![mark(1.0), mark(2.0), mark(60.0), mark(99.0), mark(100.0)],
            threshold: None,
            ticks: Vec::new(),
            unit: "",
            log: false,
            height: 300.0,
            hints: &[],
        };
        let drawing = Drawing::new(&chart, "on-page", 960.0, 300.0, (50.0, 100.0));
        let x = Scale::new((1.0, 100.0), (50.0, 860.0), false);
        assert_eq!(drawing.lane_rows(&x), [0, 1, 0, 0, 1]);
    }
}
