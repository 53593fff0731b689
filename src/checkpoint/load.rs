//! Saved weights into a model: all or nothing, and a report either way.
//!
//! By default every parameter of the model must be in the checkpoint, with the same name and
//! shape, and the other way round. [`LoadOptions`] relaxes one rule at a time, by name, so that
//! what was not asked for is still found: a pretrained trunk under another head is
//! `LoadOptions::new().only("trunk.*")`, and a typo in it is an error.

use std::fmt;

use super::state::{NamedTensor, TrainingState};
use crate::error::{Error, Result};
use crate::names::nearest;
use crate::params::{ParamId, Params};

/// What may differ between a checkpoint and a model. Patterns are names in which `*` stands for
/// any characters.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    only: Vec<String>,
    renames: Vec<(String, String)>,
    allow_missing: Vec<String>,
    allow_unexpected: Vec<String>,
    coverage: f64,
}

impl LoadOptions {
    /// Strict: nothing may differ.
    pub fn new() -> Self {
        LoadOptions::default()
    }

    /// Loads only the parameters of the model that match the pattern (or another one given in
    /// the same way); the others keep their values.
    pub fn only(mut self, pattern: impl Into<String>) -> Self {
        self.only.push(pattern.into());
        self
    }

    /// Takes what the checkpoint calls `from` for what the model calls `to`. Each may contain
    /// one `*`, which stands for the same characters in both: `rename("module.*", "*")`. The
    /// first rename that matches a name is the one that counts.
    pub fn rename(mut self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.renames.push((from.into(), to.into()));
        self
    }

    /// Parameters of the model that match may be missing in the checkpoint; they keep their
    /// values.
    pub fn allow_missing(mut self, pattern: impl Into<String>) -> Self {
        self.allow_missing.push(pattern.into());
        self
    }

    /// Tensors of the checkpoint that match (after renaming) may be unknown to the model; they
    /// are ignored.
    pub fn allow_unexpected(mut self, pattern: impl Into<String>) -> Self {
        self.allow_unexpected.push(pattern.into());
        self
    }

    /// Refuses to load if fewer than this fraction of the model's weights would be.
    pub fn min_coverage(mut self, fraction: f64) -> Self {
        self.coverage = fraction;
        self
    }

    /// Copies saved tensors into `params`.
    ///
    /// # Errors
    /// [`Error::Load`] with the report if anything is missing, unexpected or of another shape
    /// and not allowed to be. `params` is then unchanged.
    pub fn load(&self, saved: &[NamedTensor<'_>], params: &mut Params) -> Result<LoadReport> {
        self.load_all(saved.iter(), params)
    }

    fn load_all<'t>(
        &self,
        saved: impl Iterator<Item = &'t NamedTensor<'t>>,
        params: &mut Params,
    ) -> Result<LoadReport> {
        let any = |patterns: &[String], name: &str| patterns.iter().any(|p| matches(p, name));
        let wanted = |name: &str| self.only.is_empty() || any(&self.only, name);
        let weights = params.ids().map(|id| params.shape(id).numel()).sum();
        let mut report = LoadReport { weights, ..LoadReport::default() };
        let mut found: Vec<(ParamId, &NamedTensor<'_>)> = Vec::new();
        for tensor in saved {
            let name = self.renamed(&tensor.name);
            if !wanted(&name) {
                continue;
            }
            match params.id(&name) {
                Some(id) if found.iter().any(|&(other, _)| other == id) => {
                    report.unexpected.push(format!("{} (a second {name})", tensor.name));
                }
                Some(id) if *params.shape(id) == *tensor.shape => {
                    report.loaded.push(name);
                    report.weights_loaded += tensor.data.len();
                    found.push((id, tensor));
                }
                Some(id) => report.mismatched.push(Mismatch {
                    name,
                    saved: tensor.shape.clone(),
                    model: params.shape(id).to_vec(),
                }),
                None if any(&self.allow_unexpected, &name) => {}
                None => report.unexpected.push(name),
            }
        }
        let mut forgiven = Vec::new();
        for id in params.ids().filter(|&id| wanted(params.name(id))) {
            let name = params.name(id);
            let seen = found.iter().any(|&(other, _)| other == id)
                || report.mismatched.iter().any(|mismatch| mismatch.name == name);
            match seen {
                true => {}
                false if any(&self.allow_missing, name) => forgiven.push(name.to_owned()),
                false => report.missing.push(name.to_owned()),
            }
        }
        report.too_little = report.coverage() < self.coverage;
        if !report.is_complete() {
            return Err(Error::Load { report: Box::new(report) });
        }
        report.missing = forgiven;
        for (id, tensor) in found {
            params.get_mut(id).copy_from_slice(&tensor.data);
        }
        Ok(report)
    }

    fn renamed(&self, name: &str) -> String {
        let rename = |(from, to): &(String, String)| match capture(from, name)? {
            Some(middle) => Some(to.replacen('*', middle, 1)),
            None => Some(to.clone()),
        };
        self.renames.iter().find_map(rename).unwrap_or_else(|| name.to_owned())
    }
}

/// What was loaded and what was not.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LoadReport {
    /// Parameters that were (or would have been) loaded.
    pub loaded: Vec<String>,
    /// Parameters of the model that are not in the checkpoint.
    pub missing: Vec<String>,
    /// Tensors of the checkpoint that are not in the model.
    pub unexpected: Vec<String>,
    /// Parameters that have different shapes in the checkpoint and in the model.
    pub mismatched: Vec<Mismatch>,
    /// How many single weights the model has, buffers included.
    pub weights: usize,
    /// How many of them were (or would have been) loaded.
    pub weights_loaded: usize,
    too_little: bool,
}

/// A parameter with two shapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The parameter, as the model calls it.
    pub name: String,
    /// Its shape in the checkpoint.
    pub saved: Vec<usize>,
    /// Its shape in the model.
    pub model: Vec<usize>,
}

impl LoadReport {
    /// The fraction of the model's weights that is in the checkpoint, from 0 to 1.
    pub fn coverage(&self) -> f64 {
        self.weights_loaded as f64 / self.weights.max(1) as f64
    }

    fn is_complete(&self) -> bool {
        self.missing.is_empty()
            && self.unexpected.is_empty()
            && self.mismatched.is_empty()
            && !self.too_little
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} parameters fit ({:.1}% of the model's weights)",
            self.loaded.len(),
            100.0 * self.coverage()
        )?;
        for name in &self.missing {
            write!(f, "\n  missing in the checkpoint: {name}")?;
            if let Some(near) = nearest(name, &self.unexpected) {
                write!(f, " (is it {near}? then rename it)")?;
            }
        }
        for name in &self.unexpected {
            write!(f, "\n  unknown to the model: {name}")?;
            if let Some(near) = nearest(name, &self.missing) {
                write!(f, " (is it {near}? then rename it)")?;
            }
        }
        for Mismatch { name, saved, model } in &self.mismatched {
            write!(f, "\n  {name}: shape {saved:?} in the checkpoint, {model:?} in the model")?;
        }
        if self.too_little {
            f.write_str("\n  that is less of the model than was asked for")?;
        }
        Ok(())
    }
}

impl TrainingState<'_> {
    /// Copies the saved parameters and buffers into `params`, by name, strictly. For anything less
    /// strict see [`LoadOptions`].
    ///
    /// # Errors
    /// [`Error::Load`] with every parameter that is missing, unexpected or of another shape.
    /// `params` is then unchanged.
    pub fn load_into(&self, params: &mut Params) -> Result<()> {
        LoadOptions::new().load_all(self.params.iter().chain(&self.buffers), params).map(drop)
    }
}

/// Whether a name matches a pattern in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len())
                .filter(|&at| rest.is_char_boundary(at))
                .any(|at| matches(after, &rest[at..]))
        }),
    }
}

/// `None` if the pattern does not match, else what its one `*`, if it has one, stands for.
fn capture<'n>(pattern: &str, name: &'n str) -> Option<Option<&'n str>> {
    match pattern.split_once('*') {
        None => (pattern == name).then_some(None),
        Some((before, after)) => Some(Some(name.strip_prefix(before)?.strip_suffix(after)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Init;

    fn model() -> Params {
        let mut params = Params::new(1);
        params.add("conv.weight", [2, 3].as_slice(), Init::Zeros);
        params.add("conv.bias", [2].as_slice(), Init::Zeros);
        params.add("head.weight", [4, 2].as_slice(), Init::Zeros);
        params
    }

    fn tensor(name: &str, shape: &[usize]) -> NamedTensor<'static> {
        NamedTensor::new(name, shape, vec![1.0; shape.iter().product()])
    }

    fn refused(options: LoadOptions, saved: &[NamedTensor<'_>]) -> LoadReport {
        let mut params = model();
        match options.load(saved, &mut params) {
            Err(Error::Load { report }) => {
                assert!(params.flat().iter().all(|&weight| weight == 0.0), "all or nothing");
                *report
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn strict_loading_lists_everything_that_is_wrong() {
        let saved = [
            tensor("conv.wieght", &[2, 3]),
            tensor("conv.bias", &[3]),
            tensor("head.weight", &[4, 2]),
        ];
        let report = refused(LoadOptions::new(), &saved);
        assert_eq!(report.loaded, ["head.weight"]);
        assert_eq!(report.missing, ["conv.weight"]);
        assert_eq!(report.unexpected, ["conv.wieght"]);
        let shapes = Mismatch { name: "conv.bias".into(), saved: vec![3], model: vec![2] };
        assert_eq!(report.mismatched, [shapes]);
        let text = report.to_string();
        assert!(
            text.contains("missing in the checkpoint: conv.weight (is it conv.wieght?"),
            "{text}"
        );
        assert!(
            text.contains("conv.bias: shape [3] in the checkpoint, [2] in the model"),
            "{text}"
        );
    }

    #[test]
    fn each_option_allows_one_thing() {
        let trunk = [tensor("conv.weight", &[2, 3]), tensor("conv.bias", &[2])];
        assert_eq!(refused(LoadOptions::new(), &trunk).missing, ["head.weight"]);

        let mut params = model();
        let report = LoadOptions::new().allow_missing("head.*").load(&trunk, &mut params).unwrap();
        assert_eq!((report.loaded.len(), report.missing.len()), (2, 1));
        assert_eq!(report.coverage(), 0.5);
        let half = LoadOptions::new().allow_missing("*").min_coverage(0.6);
        assert!(refused(half, &trunk).to_string().contains("less of the model"));

        // A head of another shape does not disturb whoever wants only the trunk.
        let other_head = [trunk[0].clone(), trunk[1].clone(), tensor("head.weight", &[9, 2])];
        assert_eq!(refused(LoadOptions::new(), &other_head).mismatched.len(), 1);
        LoadOptions::new().only("conv.*").load(&other_head, &mut params).unwrap();
        let typo = refused(LoadOptions::new().only("conv.weight").rename("conv.*", "c.*"), &trunk);
        assert_eq!(typo.missing, ["conv.weight"]);

        let wrapped: Vec<_> = ["conv.weight", "conv.bias", "head.weight"]
            .into_iter()
            .zip([&[2, 3][..], &[2], &[4, 2]])
            .map(|(name, shape)| tensor(&format!("module.{name}"), shape))
            .collect();
        LoadOptions::new().rename("module.*", "*").load(&wrapped, &mut params).unwrap();
        assert!(params.ids().all(|id| params.get(id).iter().all(|&weight| weight == 1.0)));
        let twice = [wrapped[1].clone(), tensor("conv.bias", &[2])];
        let twice = refused(LoadOptions::new().only("conv.bias").rename("module.*", "*"), &twice);
        assert_eq!(twice.unexpected.len(), 1);

        let extra =
            [trunk[0].clone(), trunk[1].clone(), tensor("head.weight", &[4, 2]), tensor("x", &[1])];
        assert_eq!(refused(LoadOptions::new(), &extra).unexpected, ["x"]);
        LoadOptions::new().allow_unexpected("x").load(&extra, &mut params).unwrap();
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name) in [("*", ""), ("a*c", "abbc"), ("*.bias", "x.bias"), ("a*b*", "a1b2")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("", "a"), ("a*c", "abb"), ("ab*ba", "aba"), ("*.b", "x.bias")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
