//! Splitting a data set into training, validation and test parts.

use std::sync::Arc;

use super::{Dataset, Subset};
use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};

/// Three parts of the data that have no example in common.
#[derive(Clone)]
pub struct Split {
    /// To learn from.
    pub train: Subset,
    /// To decide when to stop, and which of two models is better.
    pub valid: Subset,
    /// To be looked at once, at the very end.
    pub test: Subset,
}

impl Split {
    /// Holds out the fractions `valid` and `test` of `data`; the rest is for training.
    ///
    /// The result depends on the labels, the fractions and `seed` only. The test part does not even
    /// depend on `valid`: one can vary the size of the validation part and still compare.
    /// See [`Subset::hold_out`] for how examples are chosen.
    ///
    /// # Errors
    /// [`Error::Config`] if a fraction is not between 0 and 1, or a part would be empty.
    pub fn stratified(data: Arc<dyn Dataset>, valid: f64, test: f64, seed: u64) -> Result<Self> {
        let n = data.len();
        let count = |name, fraction: f64| {
            if fraction > 0.0 && fraction < 1.0 {
                Ok((n as f64 * fraction).round() as usize)
            } else {
                Err(Error::config(name, format!("fraction {fraction} is not between 0 and 1")))
            }
        };
        let (valid, test) = (count("valid", valid)?, count("test", test)?);
        let (rest, test) = Subset::all(data).hold_out(test, seed)?;
        let (train, valid) = rest.hold_out(valid, seed)?;
        Ok(Split { train, valid, test })
    }
}

impl Subset {
    /// Divides these examples in two, `(rest, held out)`: `count` examples are held out at random,
    /// stratified, that is with each class in the proportion of the whole as closely as whole
    /// numbers allow. Both parts keep the order of the examples.
    ///
    /// # Errors
    /// [`Error::Config`] if `count` would leave one of the two empty.
    pub fn hold_out(&self, count: usize, seed: u64) -> Result<(Subset, Subset)> {
        let n = self.len();
        if count == 0 || count >= n {
            let reason = format!("{count} of {n} examples would leave a part empty");
            return Err(Error::config("held out", reason));
        }
        let mut by_class = vec![Vec::new(); self.classes().max(1)];
        for i in 0..n {
            by_class[self.label(i)].push(i);
        }
        // Put the examples in a random order in which every beginning is stratified: example r of
        // the m of its class belongs at (r + 1/2) / m of the way. Then cut the beginning off.
        let mut order = Vec::with_capacity(n);
        for (class, members) in by_class.iter_mut().enumerate() {
            // Naming the stream after `n` keeps two nested splits from repeating their choices.
            Stream::new(seed, Purpose::Split, class as u64, n as u64).shuffle(members);
            let m = members.len() as f64;
            order.extend(members.iter().enumerate().map(|(r, &i)| ((r as f64 + 0.5) / m, i)));
        }
        order.sort_by(|(a, _), (b, _)| a.total_cmp(b)); // stable: equal places in class order
        let part = |places: &[(f64, usize)]| {
            let mut indices: Vec<usize> = places.iter().map(|&(_, i)| self.indices()[i]).collect();
            indices.sort_unstable();
            Subset::new(self.base.clone(), indices)
        };
        Ok((part(&order[count..]), part(&order[..count])))
    }
}
