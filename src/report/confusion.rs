//! The confusion matrix as a picture, and its largest errors in words.

use std::fmt::Write as _;

use super::html::{escape, shortened};
use crate::metrics::ConfusionMatrix;

/// Up to so many classes the cells have room for numbers.
const NUMBERED: usize = 20;
/// More names than this along an edge are every second, fifth ... one.
const NAMED: usize = 40;

/// The matrix: a row per class, a column per prediction.
pub(super) fn picture(matrix: &ConfusionMatrix, names: &[String]) -> String {
    let classes = matrix.classes();
    let size = 480.0;
    let numbered = classes <= NUMBERED;
    let longest = names.iter().map(|name| shortened(name, 12).chars().count()).max().unwrap_or(1);
    let stride = [1, 2, 5, 10, 20, 50].into_iter().find(|s| classes / s <= NAMED).unwrap_or(100);
    let font = (size / classes as f64 * stride as f64 * 0.45).clamp(9.0, 13.0);
    let edge = 14.0 + font * 0.62 * longest as f64;
    let cell = (size - edge) / classes as f64;
    let upright = longest as f64 * font * 0.62 <= cell;
    let top = if upright { 16.0 + font } else { edge };
    let height = top + cell * classes as f64 + 2.0;
    let mut svg = format!(
        "<svg class=\"matrix\" viewBox=\"0 0 {size} {height:.0}\" role=\"img\" \
         aria-label=\"Confusion matrix of {classes} classes: {:.2}% of {} examples are on the \
         diagonal\">\n",
        100.0 * matrix.accuracy(),
        matrix.total()
    );
    for class in (0..classes).step_by(stride) {
        let name = escape(&shortened(&names[class], 12));
        let middle = cell * (class as f64 + 0.5);
        let (x, y) = (edge - 5.0, top + middle + font * 0.35);
        let _ = write!(
            svg,
            "<text class=\"tick\" style=\"font-size:{font:.1}px\" x=\"{x:.1}\" y=\"{y:.1}\" \
             text-anchor=\"end\">{name}</text>"
        );
        let (x, y) = (edge + middle, top - 5.0);
        let _ = match upright {
            true => write!(
                svg,
                "<text class=\"tick\" style=\"font-size:{font:.1}px\" x=\"{x:.1}\" y=\"{y:.1}\" \
                 text-anchor=\"middle\">{name}</text>"
            ),
            false => write!(
                svg,
                "<text class=\"tick\" style=\"font-size:{font:.1}px\" transform=\"translate({:.1} \
                 {y:.1}) rotate(-90)\">{name}</text>",
                x + font * 0.35
            ),
        };
    }
    let outline = cell * classes as f64;
    let _ = writeln!(
        svg,
        "\n<rect class=\"frame\" x=\"{edge:.1}\" y=\"{top:.1}\" width=\"{outline:.1}\" \
         height=\"{outline:.1}\"/>"
    );
    for label in 0..classes {
        let support = matrix.class(label).support.max(1) as f64;
        for predicted in 0..classes {
            let count = matrix.count(label, predicted);
            if count == 0 {
                continue;
            }
            let share = count as f64 / support;
            let right = label == predicted;
            // The root shows a single error among a thousand examples, too.
            let strength = if right { 0.12 + 0.55 * share } else { 0.15 + 0.85 * share.sqrt() };
            let (x, y) = (edge + cell * predicted as f64, top + cell * label as f64);
            let inner = if cell > 8.0 { cell - 1.0 } else { cell };
            let _ = write!(
                svg,
                "<rect class=\"{}\" fill-opacity=\"{strength:.2}\" x=\"{x:.1}\" y=\"{y:.1}\" \
                 width=\"{inner:.1}\" height=\"{inner:.1}\"><title>{} taken for {}: \
                 {count}</title></rect>",
                if right { "hit" } else { "miss" },
                escape(&names[label]),
                escape(&names[predicted])
            );
            if numbered {
                let digits = count.to_string().len() as f64;
                let font = font.min(1.5 * cell / digits.max(2.0));
                let _ = write!(
                    svg,
                    "<text class=\"count\" style=\"font-size:{font:.1}px\" x=\"{:.1}\" y=\"{:.1}\" \
                     text-anchor=\"middle\">{count}</text>",
                    x + cell / 2.0,
                    y + cell / 2.0 + font * 0.35
                );
            }
        }
        svg.push('\n');
    }
    svg + "</svg>\n"
}

/// The `n` most frequent errors: class, prediction, how often.
pub(super) fn largest(matrix: &ConfusionMatrix, n: usize) -> Vec<(usize, usize, u64)> {
    let classes = matrix.classes();
    let pairs =
        (0..classes).flat_map(|label| (0..classes).map(move |predicted| (label, predicted)));
    let wrong = pairs.filter(|(label, predicted)| label != predicted);
    let mut wrong: Vec<_> = wrong
        .map(|(label, predicted)| (label, predicted, matrix.count(label, predicted)))
        .filter(|error| error.2 > 0)
        .collect();
    wrong.sort_by_key(|error| std::cmp::Reverse(error.2));
    wrong.truncate(n);
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_errors_come_first() {
        let mut matrix = ConfusionMatrix::new(3);
        for (label, predicted) in [(0, 0), (0, 1), (2, 1), (2, 1), (1, 1)] {
            matrix.add(label, predicted);
        }
        assert_eq!(largest(&matrix, 5), [(2, 1, 2), (0, 1, 1)]);
        assert_eq!(largest(&matrix, 1), [(2, 1, 2)]);
    }
}
