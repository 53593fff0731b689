//! How good predictions are: accuracy, top-k, confusion matrix, precision and recall, means with
//! their standard errors, regression errors.
//!
//! Everything is a plain function of slices or a table of counts, so that it can be computed batch
//! by batch and checked by hand. Sums are formed in `f64`, pairwise, in an order that depends on
//! the number of terms only: the same values give the same bits.

use std::fmt;

/// The position of the largest value: the predicted class. Of equal ones the first. NaN counts as
/// larger than everything, as in PyTorch, so that a broken network does not look like a working
/// one.
///
/// # Panics
/// If `scores` is empty.
pub fn argmax(scores: &[f32]) -> usize {
    assert!(!scores.is_empty(), "argmax: no scores");
    (1..scores.len()).fold(0, |best, i| if above(scores[i], scores[best]) { i } else { best })
}

/// `a > b` where NaN is the largest value.
fn above(a: f32, b: f32) -> bool {
    a > b || (a.is_nan() && !b.is_nan())
}

/// In how many rows the label is among the `k` highest scores; with `k` 1, in how many it is the
/// [`argmax`].
///
/// `scores` is `[n, classes]` with `n = labels.len()`.
///
/// # Panics
/// If `scores` is not a whole number of classes per label, or a label is not below it.
#[track_caller]
pub fn top_k_correct(scores: &[f32], labels: &[usize], k: usize) -> usize {
    let rows = rows("top_k_correct", scores, labels).zip(labels);
    rows.filter(|&(row, &label)| rank(row, label) < k).count()
}

/// How many classes come before `label` when sorted by falling score, equal ones by class.
fn rank(scores: &[f32], label: usize) -> usize {
    let own = scores[label];
    let before =
        |&(i, &score): &(usize, &f32)| above(score, own) || (i < label && !above(own, score));
    scores.iter().enumerate().filter(before).count()
}

/// The fraction of rows whose [`argmax`] is the label.
///
/// `scores` is `[n, classes]` with `n = labels.len()`.
///
/// # Panics
/// As [`top_k_correct`].
#[track_caller]
pub fn accuracy(scores: &[f32], labels: &[usize]) -> f64 {
    top_k_correct(scores, labels, 1) as f64 / labels.len() as f64
}

/// The rows of `[n, classes]` scores that belong to `n` labels.
#[track_caller]
fn rows<'s>(name: &str, scores: &'s [f32], labels: &[usize]) -> std::slice::ChunksExact<'s, f32> {
    let (total, n) = (scores.len(), labels.len());
    assert!(n > 0 && total > 0 && total % n == 0, "{name}: {total} scores for {n} labels");
    let classes = total / n;
    let outside = labels.iter().find(|&&label| label >= classes);
    assert!(outside.is_none(), "{name}: label {outside:?} is not below {classes} classes");
    scores.chunks_exact(classes)
}

/// How often each class was taken for each other one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfusionMatrix {
    classes: usize,
    /// `[label, prediction]`
    counts: Vec<u64>,
}

impl ConfusionMatrix {
    /// A table of zeros.
    pub fn new(classes: usize) -> Self {
        ConfusionMatrix { classes, counts: vec![0; classes * classes] }
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Counts an example of class `label` for which `predicted` was predicted.
    ///
    /// # Panics
    /// If one of them is not below the number of classes.
    #[track_caller]
    pub fn add(&mut self, label: usize, predicted: usize) {
        let Self { classes, counts } = self;
        assert!(
            label < *classes && predicted < *classes,
            "ConfusionMatrix: label {label}, prediction {predicted}, but {classes} classes"
        );
        counts[label * *classes + predicted] += 1;
    }

    /// Counts a batch: `scores` is `[n, classes]` with `n = labels.len()`.
    ///
    /// # Panics
    /// If the lengths do not fit, or a label is not below the number of classes.
    #[track_caller]
    pub fn add_batch(&mut self, scores: &[f32], labels: &[usize]) {
        for (row, &label) in rows("ConfusionMatrix", scores, labels).zip(labels) {
            self.add(label, argmax(row));
        }
    }

    /// How many examples of class `label` were predicted to be `predicted`.
    pub fn count(&self, label: usize, predicted: usize) -> u64 {
        self.counts[label * self.classes + predicted]
    }

    /// The number of examples counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The fraction of all examples that were predicted correctly; NaN if there are none.
    pub fn accuracy(&self) -> f64 {
        let correct: u64 = (0..self.classes).map(|class| self.count(class, class)).sum();
        correct as f64 / self.total() as f64
    }

    /// Precision, recall and F1 of one class.
    pub fn class(&self, class: usize) -> ClassScores {
        let hits = self.count(class, class) as f64;
        let support: u64 = (0..self.classes).map(|predicted| self.count(class, predicted)).sum();
        let predicted: u64 = (0..self.classes).map(|label| self.count(label, class)).sum();
        let ratio = |of: f64| if of > 0.0 { hits / of } else { 0.0 };
        ClassScores {
            precision: ratio(predicted as f64),
            recall: ratio(support as f64),
            f1: ratio((predicted + support) as f64 / 2.0),
            support,
        }
    }

    /// The plain mean of the scores of all classes that occur (have examples), each class counting
    /// the same; `support` is their total. All 0 if there are no examples.
    pub fn macro_average(&self) -> ClassScores {
        let scores = (0..self.classes).map(|class| self.class(class));
        let present: Vec<ClassScores> = scores.filter(|scores| scores.support > 0).collect();
        let mean = |score: fn(&ClassScores) -> f64| {
            present.iter().map(score).sum::<f64>() / present.len().max(1) as f64
        };
        ClassScores {
            precision: mean(|s| s.precision),
            recall: mean(|s| s.recall),
            f1: mean(|s| s.f1),
            support: self.total(),
        }
    }
}

impl fmt::Display for ConfusionMatrix {
    /// A table with a row per label and a column per prediction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let largest = self.counts.iter().max().copied().unwrap_or(0).max(self.classes as u64);
        let width = largest.to_string().len() + 1;
        write!(f, "{:>8}", "")?;
        (0..self.classes).try_for_each(|class| write!(f, "{class:>width$}"))?;
        for label in 0..self.classes {
            write!(f, "\n{label:>8}")?;
            (0..self.classes).try_for_each(|p| write!(f, "{:>width$}", self.count(label, p)))?;
        }
        Ok(())
    }
}

/// How well one class is recognised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassScores {
    /// Of the examples predicted to be of this class, the fraction that are; 0 if there are none.
    pub precision: f64,
    /// Of the examples of this class, the fraction predicted to be; 0 if there are none.
    pub recall: f64,
    /// The harmonic mean of the two: `2 hits / (predicted + support)`.
    pub f1: f64,
    /// The number of examples of this class.
    pub support: u64,
}

/// A mean, and how far it may be from the mean of an unlimited number of such values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mean {
    /// The mean; NaN if there are no values.
    pub mean: f64,
    /// Its standard error, `s / sqrt(n)` with `s^2 = sum (x - mean)^2 / (n - 1)`; NaN for fewer
    /// than two values.
    pub standard_error: f64,
    /// The number of values.
    pub count: usize,
}

impl Mean {
    /// Of values such as the losses of single examples.
    pub fn of(values: &[f32]) -> Self {
        let count = values.len();
        let mean = pairwise_sum(count, &|i| f64::from(values[i])) / count as f64;
        let squares = pairwise_sum(count, &|i| (f64::from(values[i]) - mean).powi(2));
        let standard_error = match count {
            0 | 1 => f64::NAN,
            n => (squares / (n - 1) as f64 / n as f64).sqrt(),
        };
        Mean { mean, standard_error, count }
    }
}

/// The mean of the squared differences.
///
/// # Panics
/// If the lengths differ or are 0.
#[track_caller]
pub fn mean_squared_error(predicted: &[f32], target: &[f32]) -> f64 {
    mean_difference("mean_squared_error", predicted, target, |d| d * d)
}

/// The mean of the absolute differences.
///
/// # Panics
/// If the lengths differ or are 0.
#[track_caller]
pub fn mean_absolute_error(predicted: &[f32], target: &[f32]) -> f64 {
    mean_difference("mean_absolute_error", predicted, target, f64::abs)
}

#[track_caller]
fn mean_difference(name: &str, predicted: &[f32], target: &[f32], of: fn(f64) -> f64) -> f64 {
    let (n, m) = (predicted.len(), target.len());
    assert!(n == m && n > 0, "{name}: {n} predictions for {m} targets");
    pairwise_sum(n, &|i| of(f64::from(predicted[i]) - f64::from(target[i]))) / n as f64
}

/// `term(0) + .. + term(n - 1)`, by halves: the rounding error grows with `log n` instead of `n`.
fn pairwise_sum(n: usize, term: &dyn Fn(usize) -> f64) -> f64 {
    fn range(start: usize, end: usize, term: &dyn Fn(usize) -> f64) -> f64 {
        if end - start <= 32 {
            return (start..end).map(term).sum();
        }
        let middle = start + (end - start) / 2;
        range(start, middle, term) + range(middle, end, term)
    }
    range(0, n, term)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argmax_prefers_the_first_and_nan() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(argmax(&[-0.0, 0.0]), 0);
        assert_eq!(argmax(&[1.0, f32::NAN, f32::INFINITY, f32::NAN]), 1);
        assert_eq!(argmax(&[f32::NEG_INFINITY]), 0);
    }

    #[test]
    fn top_k_by_hand() {
        #[rustfmt::skip]
        let scores = [
            0.1, 0.5, 0.4, // order 1 2 0
            3.0, 1.0, 2.0, // order 0 2 1
            1.0, 1.0, 1.0, // order 0 1 2
        ];
        let labels = [2, 0, 1];
        assert_eq!([0, 1, 2, 3, 9].map(|k| top_k_correct(&scores, &labels, k)), [0, 1, 3, 3, 3]);
        assert_eq!(accuracy(&scores, &labels), 1.0 / 3.0);
    }

    #[test]
    fn top_1_is_the_argmax_also_with_ties_and_nan() {
        let values = [0.0, 1.0, f32::NAN, f32::INFINITY];
        for code in 0..64 {
            let row = [code % 4, code / 4 % 4, code / 16].map(|i| values[i]);
            for label in 0..3 {
                let correct = top_k_correct(&row, &[label], 1) == 1;
                assert_eq!(correct, argmax(&row) == label, "{row:?} {label}");
                assert_eq!(top_k_correct(&row, &[label], 3), 1);
            }
        }
    }

    #[test]
    fn confusion_matrix_by_hand() {
        // Class:      0  0  0  0  1  1  2  2  2     class 3 never occurs
        // Prediction: 0  0  1  3  1  1  2  0  0
        let mut matrix = ConfusionMatrix::new(4);
        for (label, predicted) in
            [(0, 0), (0, 0), (0, 1), (0, 3), (1, 1), (1, 1), (2, 2), (2, 0), (2, 0)]
        {
            matrix.add(label, predicted);
        }
        assert_eq!((matrix.count(2, 0), matrix.count(0, 2), matrix.total()), (2, 0, 9));
        assert_eq!(matrix.accuracy(), 5.0 / 9.0);
        let scores =
            |precision, recall, f1, support| ClassScores { precision, recall, f1, support };
        assert_eq!(matrix.class(0), scores(0.5, 0.5, 0.5, 4));
        assert_eq!(matrix.class(1), scores(2.0 / 3.0, 1.0, 0.8, 2));
        assert_eq!(matrix.class(2), scores(1.0, 1.0 / 3.0, 0.5, 3));
        assert_eq!(matrix.class(3), scores(0.0, 0.0, 0.0, 0));
        let average = matrix.macro_average();
        assert!((average.precision - (0.5 + 2.0 / 3.0 + 1.0) / 3.0).abs() < 1e-15);
        assert!((average.recall - (0.5 + 1.0 + 1.0 / 3.0) / 3.0).abs() < 1e-15);
        assert!((average.f1 - 0.6).abs() < 1e-15);
        let table = "         0 1 2 3\n       0 2 1 0 1\n       1 0 2 0 0\n       2 2 0 1 0\n       3 0 0 0 0";
        assert_eq!(matrix.to_string(), table);

        let mut batch = ConfusionMatrix::new(2);
        batch.add_batch(&[0.9, 0.1, 0.9, 0.1, 0.2, 0.8], &[0, 1, 1]);
        assert_eq!(batch.accuracy(), accuracy(&[0.9, 0.1, 0.9, 0.1, 0.2, 0.8], &[0, 1, 1]));
        assert_eq!(batch.count(1, 0), 1);
    }

    #[test]
    fn mean_and_standard_error_by_hand() {
        // Mean 5, squared differences 9 1 1 1 0 0 4 16 = 32, 32/7/8 = 4/7.
        let mean = Mean::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        assert_eq!((mean.mean, mean.count), (5.0, 8));
        assert!((mean.standard_error - (4.0f64 / 7.0).sqrt()).abs() < 1e-15);
        assert!(Mean::of(&[]).mean.is_nan());
        assert!(Mean::of(&[1.0]).standard_error.is_nan());
        assert!(Mean::of(&[1.0, f32::NAN]).mean.is_nan());
        assert_eq!(Mean::of(&[f32::INFINITY, 1.0]).mean, f64::INFINITY);
    }

    #[test]
    fn long_sums_stay_exact() {
        // One large value and a million small ones, which a running f32 sum would lose.
        let mut values = vec![0.5; 1_000_001];
        values[0] = 1e8;
        assert_eq!(Mean::of(&values).mean * 1_000_001.0, 1e8 + 500_000.0);
        assert_eq!(Mean::of(&[3.25; 1000]).standard_error, 0.0);
    }

    #[test]
    fn regression_errors_by_hand() {
        let (predicted, target) = ([1.0, 2.0, 3.0, 4.0], [1.0, 0.0, 4.0, 1.0]);
        assert_eq!(mean_squared_error(&predicted, &target), (4.0 + 1.0 + 9.0) / 4.0);
        assert_eq!(mean_absolute_error(&predicted, &target), 6.0 / 4.0);
    }

    #[test]
    #[should_panic(expected = "top_k_correct: 7 scores for 2 labels")]
    fn scores_must_fit_the_labels() {
        top_k_correct(&[0.0; 7], &[0, 0], 1);
    }
}
