//! An independent reading of the format, to damage a checkpoint file and then make its checksums
//! right again, as an attacker would.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_128;

fn u64_at(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    usize::try_from(u64::from_le_bytes(bytes.try_into().unwrap())).ok()
}

/// A section of a file: its directory line and its bytes, as far as they exist.
pub struct Section {
    pub tag: [u8; 4],
    pub line: usize,
    pub bytes: Range<usize>,
}

/// The sections that the directory lists.
pub fn sections(file: &[u8]) -> Vec<Section> {
    let count = file.get(12..16).map_or(0, |b| u32::from_le_bytes(b.try_into().unwrap())).min(64);
    (0..count as usize)
        .map_while(|i| {
            let line = 128 + 64 * i;
            let tag = file.get(line..line + 4)?.try_into().unwrap();
            let start = u64_at(file, line + 8)?.min(file.len());
            let end = start.saturating_add(u64_at(file, line + 16)?).min(file.len());
            Some(Section { tag, line, bytes: start..end })
        })
        .collect()
}

/// Recomputes every checksum that the structure, right or wrong, still leads to.
pub fn repair(file: &mut [u8]) {
    if file.len() < 192 {
        return;
    }
    let sections = sections(file);
    let find = |tag: &[u8; 4]| sections.iter().find(|section| &section.tag == tag);
    if let (Some(tidx), Some(tdat)) = (find(b"TIDX"), find(b"TDAT")) {
        repair_tensors(file, tidx.bytes.clone(), tdat.bytes.clone());
    }
    let mut state = Vec::new();
    for Section { tag, line, bytes } in &sections {
        if file.len() < line + 64 {
            continue;
        }
        if tag != b"TDAT" {
            let sum = xxh3_128(&file[bytes.clone()]).to_le_bytes();
            file[line + 48..line + 64].copy_from_slice(&sum);
        }
        if tag != b"META" && file[line + 4] & 1 == 1 {
            state.extend_from_slice(tag);
            state.extend_from_slice(&file[line + 16..line + 24]);
            state.extend_from_slice(&file[line + 48..line + 64]);
        }
    }
    file[48..64].copy_from_slice(&xxh3_128(&state).to_le_bytes());
    let directory_end = (128 + 64 * sections.len()).min(file.len());
    let covered = [&file[..112], &file[128..directory_end]].concat();
    let root = xxh3_128(&covered).to_le_bytes();
    file[112..128].copy_from_slice(&root);
    let end = file.len();
    file[end - 16..].copy_from_slice(&root);
}

/// Walks TIDX as far as it makes sense and recomputes the checksums in it.
fn repair_tensors(file: &mut [u8], tidx: Range<usize>, tdat: Range<usize>) {
    let mut at = tidx.start + 8;
    let mut next = || -> Option<(usize, Range<usize>)> {
        let name = u64_at(file, at + 2)?;
        let rank_at = at.checked_add(10)?.checked_add(name)?;
        let rank = u64_at(file, rank_at)?;
        let offset_at = rank_at.checked_add(8)?.checked_add(rank.checked_mul(8)?)?;
        let start = tdat.start.checked_add(u64_at(file, offset_at)?)?.min(tdat.end);
        let end = start.checked_add(u64_at(file, offset_at + 8)?)?.min(tdat.end);
        at = offset_at.checked_add(32)?;
        (at <= tidx.end).then_some((offset_at + 16, start..end))
    };
    let mut found = Vec::new();
    while let Some(tensor) = next() {
        found.push(tensor);
    }
    for (sum_at, bytes) in found {
        let sum = xxh3_128(&file[bytes]).to_le_bytes();
        file[sum_at..sum_at + 16].copy_from_slice(&sum);
    }
}
