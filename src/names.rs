//! Names that were misspelt.

/// `did you mean x?`, with the candidate that is most like a name, if one is like it at all.
pub(crate) fn did_you_mean(name: &str, candidates: &[impl AsRef<str>]) -> Option<String> {
    nearest(name, candidates).map(|near| format!("did you mean `{near}`?"))
}

/// The candidate that is most like a name, if one is like it at all.
pub(crate) fn nearest<'c>(name: &str, candidates: &'c [impl AsRef<str>]) -> Option<&'c str> {
    let candidates = candidates.iter().take(100).map(AsRef::as_ref);
    let close = candidates.filter(|candidate| edits(name, candidate) <= 1 + name.len() / 4);
    close.min_by_key(|candidate| edits(name, candidate))
}

/// Levenshtein's distance: how many bytes must be inserted, removed or changed.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_and_what_is_near() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(nearest("acuracy", &["loss", "accuracy"]), Some("accuracy"));
        assert_eq!(nearest("x", &["loss", "accuracy"]), None);
    }
}
