//! What a line chart shows, and its vertical axis; [`Drawing`] puts it on paper.
//!
//! Text in an SVG shrinks with the picture, so that one drawing cannot be readable at both widths.
//! Each chart is therefore drawn twice, and the style sheet shows one of the two.

use super::drawing::{Drawing, LETTER};
use super::scale::extent;
use crate::numbers::trimmed;

/// One chart over the evaluations of a run.
pub(super) struct Chart<'a> {
    /// What it shows, for those who do not see it.
    pub(super) label: String,
    /// Where on the horizontal axis each evaluation is: its epoch.
    pub(super) xs: &'a [f64],
    pub(super) series: Vec<Series>,
    pub(super) zones: Vec<Zone>,
    pub(super) marks: Vec<Mark>,
    /// A line that the curves are compared with.
    pub(super) threshold: Option<f64>,
    /// The values to write along the vertical axis; if there are none, round ones.
    pub(super) ticks: Vec<f64>,
    /// Written behind each number.
    pub(super) unit: &'static str,
    /// Whether the vertical axis may be logarithmic.
    pub(super) log: bool,
    /// Height on a page; on a phone it is a little less.
    pub(super) height: f64,
    /// What is said of each evaluation where the pointer rests on it; may be empty.
    pub(super) hints: &'a [String],
}

/// One curve.
pub(super) struct Series {
    pub(super) name: String,
    /// Its colour in the style sheet.
    pub(super) class: &'static str,
    /// One value per evaluation; gaps are NaN.
    pub(super) values: Vec<f64>,
    /// Half the width of the band around it, per evaluation; may be empty.
    pub(super) errors: Vec<f64>,
    /// Whether values hold since the evaluation before, and change in steps.
    pub(super) steps: bool,
}

/// A part of the horizontal axis.
pub(super) struct Zone {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) class: &'static str,
    pub(super) label: &'static str,
}

/// A place on the horizontal axis, and perhaps on a curve.
pub(super) struct Mark {
    pub(super) x: f64,
    pub(super) y: Option<f64>,
    pub(super) class: &'static str,
    pub(super) label: String,
}

impl Chart<'_> {
    /// Both drawings; a sentence if there is nothing to draw.
    pub(super) fn to_html(&self) -> String {
        let values = self.series.iter().flat_map(|series| series.values.iter());
        if !values.into_iter().any(|value| value.is_finite()) {
            return "<p class=\"none\">There is no finite value to draw.</p>\n".to_owned();
        }
        let longest = self.ticks.iter().map(|&value| trimmed(value).len()).max().unwrap_or(0);
        let left = |least: f64| (LETTER * longest as f64 + 12.0).max(least);
        let page = Drawing::new(self, "on-page", 960.0, self.height, (left(52.0), 104.0));
        let phone = Drawing::new(self, "on-phone", 360.0, 0.86 * self.height, (left(42.0), 76.0));
        format!("<div class=\"chart\">{}{}</div>\n", page.draw(), phone.draw())
    }

    /// The values that the vertical axis shows, and whether in logarithms.
    pub(super) fn range(&self) -> ((f64, f64), bool) {
        let plain = self.series.iter().flat_map(|series| series.values.iter().copied());
        let (low, high) = extent(plain.chain(self.threshold)).unwrap_or((0.0, 1.0));
        // Where a curve falls by an order of magnitude, what matters is at the end of it.
        let log = self.log && low > 0.0 && high > 8.0 * low;
        let banded = self.series.iter().flat_map(|series| {
            let band = series.values.iter().zip(&series.errors);
            band.flat_map(|(value, error)| [value - error, value + error])
        });
        let banded = banded.filter(|edge| !log || *edge > 0.5 * low);
        let (low, high) = extent(banded.chain([low, high])).unwrap_or((low, high));
        if log {
            return ((low / 1.1, high * 1.1), true);
        }
        let pad = match high - low {
            0.0 => 0.1 * high.abs().max(1e-6),
            span => 0.06 * span,
        };
        ((low - pad, high + pad), false)
    }
}
