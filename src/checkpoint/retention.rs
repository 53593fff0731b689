//! Which generations may be deleted: a pure function of what is known about them.
//!
//! A generation is kept as long as at least one role needs it: it is among the last, among the
//! best, on an every-n-epochs mark, or pinned. Only generations without any role go, and then
//! only after a newer one is safely on disk.

use std::cmp::Ordering;

use super::manager::Entry;

/// How many checkpoints to keep, by role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Keep the newest this many; at least 2, so that one damaged file is never the end.
    pub last: usize,
    /// Keep this many with the best metric.
    pub best: usize,
    /// Keep the first checkpoint of every epoch that is a multiple of this.
    pub every_epochs: Option<u64>,
    /// Once all files together are larger, roles are given up until they fit: epoch marks first,
    /// then all but one of the best, then all but two of the last, oldest first. Never more.
    pub max_bytes: Option<u64>,
}

impl Default for Retention {
    fn default() -> Self {
        Retention { last: 3, best: 1, every_epochs: None, max_bytes: None }
    }
}

/// The roles that keep an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles {
    /// Among the newest.
    pub last: bool,
    /// Among the best.
    pub best: bool,
    /// On an epoch mark.
    pub epoch: bool,
    /// Pinned.
    pub pinned: bool,
}

impl Roles {
    /// Their names: "last", "best", "epoch", "pinned".
    pub fn names(self) -> Vec<&'static str> {
        let all = [
            (self.last, "last"),
            (self.best, "best"),
            (self.epoch, "epoch"),
            (self.pinned, "pinned"),
        ];
        all.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect()
    }

    /// Whether there is any.
    pub fn any(self) -> bool {
        self.last || self.best || self.epoch || self.pinned
    }
}

impl Retention {
    /// The roles of each entry; `entries` are sound and in ascending order of generation.
    pub fn roles(&self, entries: &[Entry]) -> Vec<Roles> {
        let last = self.last.max(2);
        let mut roles = vec![Roles::default(); entries.len()];
        roles.iter_mut().rev().take(last).for_each(|roles| roles.last = true);
        for &at in by_metric(entries).iter().take(self.best) {
            roles[at].best = true;
        }
        for (at, entry) in entries.iter().enumerate() {
            roles[at].pinned = entry.pinned;
            roles[at].epoch = self.every_epochs.is_some_and(|every| {
                entry.cursor.position == 0
                    && entry.cursor.epoch > 0
                    && entry.cursor.epoch % every.max(1) == 0
                    && !entries[..at].iter().any(|older| older.cursor == entry.cursor)
            });
        }
        self.fit_budget(entries, &mut roles);
        roles
    }

    fn fit_budget(&self, entries: &[Entry], roles: &mut [Roles]) {
        let Some(budget) = self.max_bytes else { return };
        let total = |roles: &[Roles]| -> u64 {
            let kept = entries.iter().zip(roles).filter(|(_, roles)| roles.any());
            kept.map(|(entry, _)| entry.bytes).sum()
        };
        let first_best = by_metric(entries).first().copied();
        let newest = entries.len().saturating_sub(2);
        type GiveUp = fn(&mut Roles);
        let steps: [(GiveUp, &dyn Fn(usize) -> bool); 3] = [
            (|roles| roles.epoch = false, &|_| true),
            (|roles| roles.best = false, &|at| Some(at) != first_best),
            (|roles| roles.last = false, &|at| at < newest),
        ];
        for (give_up, may) in steps {
            for at in 0..entries.len() {
                if total(roles) <= budget {
                    return;
                }
                if may(at) {
                    give_up(&mut roles[at]);
                }
            }
        }
    }
}

/// The positions of entries that have a finite metric, best first; ties keep the earliest. All
/// are compared by the metric of the newest: after a change of metric the old ones do not count.
pub(super) fn by_metric(entries: &[Entry]) -> Vec<usize> {
    let metric = |at: usize| entries[at].metric.as_ref();
    let Some(newest) = (0..entries.len()).rev().find_map(metric) else { return Vec::new() };
    let mut ranked: Vec<usize> = (0..entries.len())
        .filter(|&at| {
            metric(at).is_some_and(|m| {
                m.value.is_finite()
                    && m.name == newest.name
                    && m.higher_is_better == newest.higher_is_better
            })
        })
        .collect();
    ranked.sort_by(|&a, &b| match (metric(a), metric(b)) {
        (Some(a), Some(b)) if a.better_than(b) => Ordering::Less,
        (Some(a), Some(b)) if b.better_than(a) => Ordering::Greater,
        _ => Ordering::Equal,
    });
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Cursor, Metric};

    /// Entries of 100 bytes, one per metric, each at the end of an epoch.
    fn entries(values: &[f64]) -> Vec<Entry> {
        let entry = |(i, &value): (usize, &f64)| Entry {
            generation: i as u64,
            path: format!("{i}").into(),
            bytes: 100,
            cursor: Cursor { epoch: i as u64, ..Cursor::default() },
            metric: Some(Metric::minimize("loss", value)),
            pinned: false,
            digest: String::new(),
        };
        values.iter().enumerate().map(entry).collect()
    }

    fn kept(retention: &Retention, entries: &[Entry]) -> Vec<usize> {
        let roles = retention.roles(entries);
        (0..entries.len()).filter(|&at| roles[at].any()).collect()
    }

    #[test]
    fn every_role_keeps_its_own() {
        let mut entries = entries(&[0.5, 0.3, 0.1, f64::NAN, 0.2, 0.6, 0.7, 0.8, 0.9]);
        let mut retention = Retention { last: 1, best: 2, every_epochs: None, max_bytes: None };
        assert_eq!(kept(&retention, &entries), [2, 4, 7, 8], "the last count at least 2");
        retention.every_epochs = Some(3);
        assert_eq!(kept(&retention, &entries), [2, 3, 4, 6, 7, 8]);
        let mut twice = entries.clone();
        twice[5].cursor = twice[3].cursor;
        assert_eq!(kept(&retention, &twice), [2, 3, 4, 6, 7, 8], "of two at a mark the first");
        entries[5].pinned = true;
        assert_eq!(kept(&retention, &entries), [2, 3, 4, 5, 6, 7, 8]);
        entries[3].cursor.position = 1;
        assert_eq!(kept(&retention, &entries), [2, 4, 5, 6, 7, 8], "no mark within an epoch");
    }

    #[test]
    fn a_budget_takes_roles_in_order_and_leaves_the_essential() {
        let mut entries = entries(&[0.5, 0.1, 0.2, 0.6, 0.7, 0.8, 0.9, 1.0]);
        entries[0].pinned = true;
        let all = Retention { last: 3, best: 2, every_epochs: Some(3), max_bytes: None };
        assert_eq!(kept(&all, &entries), [0, 1, 2, 3, 5, 6, 7]);
        let budget = |bytes| kept(&Retention { max_bytes: Some(bytes), ..all.clone() }, &entries);
        assert_eq!(budget(700), [0, 1, 2, 3, 5, 6, 7]);
        assert_eq!(budget(600), [0, 1, 2, 5, 6, 7], "epoch marks go first");
        assert_eq!(budget(500), [0, 1, 5, 6, 7], "then the second best");
        assert_eq!(budget(400), [0, 1, 6, 7], "then the third last");
        assert_eq!(budget(0), [0, 1, 6, 7], "and no more");
    }

    #[test]
    fn after_a_change_of_metric_only_the_new_one_counts() {
        let mut entries = entries(&[0.1, 0.2, 0.3]);
        entries[1].metric = Some(Metric::maximize("accuracy", 0.8));
        entries[2].metric = Some(Metric::maximize("accuracy", 0.9));
        assert_eq!(by_metric(&entries), [2, 1]);
    }
}
