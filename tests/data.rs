//! From files to batches: what the parts of `ferrotape::data` promise each other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferrotape::data::{
    ArrayDataset, Augment, Batches, Dataset, HorizontalFlip, Normalize, RandomShift, Split, Subset,
    load_idx_dir, read_idx_pair,
};
use ferrotape::rng::{Purpose, Stream};

fn mnist_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/mnist")
}

/// `n` images of 1x2x3 whose first pixel is their index, in classes of very different sizes.
fn uneven(n: usize) -> ArrayDataset {
    let pixels: Vec<u8> = (0..n).flat_map(|i| [i as u8, 10, 20, 30, 40, 50]).collect();
    let labels = (0..n).map(|i| [0, 0, 0, 0, 0, 1, 1, 1, 2, 0][i % 10]).collect();
    ArrayDataset::new("uneven", &[1, 2, 3], pixels, labels, 4).unwrap()
}

fn class_counts(data: &dyn Dataset) -> Vec<usize> {
    let mut counts = vec![0; data.classes()];
    (0..data.len()).for_each(|i| counts[data.label(i)] += 1);
    counts
}

#[test]
fn the_digits_in_the_repository_are_read_as_they_are() {
    let dir = mnist_dir();
    let (images, labels) = (dir.join("images-idx3-ubyte.gz"), dir.join("labels-idx1-ubyte.gz"));
    let data = read_idx_pair(&images, &labels, 10).unwrap();
    assert_eq!((data.len(), data.input_shape(), data.classes()), (10_000, &[1, 28, 28][..], 10));
    // The first labels of the MNIST training set, known to everybody who has plotted them.
    let first: Vec<usize> = (0..10).map(|i| data.label(i)).collect();
    assert_eq!(first, [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
    assert_eq!(class_counts(&data), [1001, 1127, 991, 1032, 980, 863, 1014, 1070, 944, 978]);
    assert_eq!(data.fingerprint(), 2721893538833066777);

    let normalize = Normalize::of(&data);
    assert!((normalize.mean[0] - 0.1307).abs() < 0.002, "{normalize:?}");
    assert!((normalize.std[0] - 0.3081).abs() < 0.002, "{normalize:?}");
    let data = data.normalized(normalize);
    let mut x = vec![0.0; 28 * 28];
    let (mut sum, mut squares) = (0.0, 0.0);
    for i in 0..data.len() {
        data.read(i, &mut x);
        sum += x.iter().map(|&v| f64::from(v)).sum::<f64>();
        squares += x.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
    }
    let count = 10_000.0 * 784.0;
    assert!((sum / count).abs() < 1e-5 && (squares / count - 1.0).abs() < 1e-5);
}

#[test]
fn a_directory_of_digits_becomes_three_parts() {
    let split = load_idx_dir(mnist_dir(), 10, 7).unwrap();
    assert_eq!((split.train.len(), split.valid.len(), split.test.len()), (8000, 1000, 1000));
    let mut x = vec![0.0; 784];
    split.train.read(0, &mut x);
    assert_eq!(x[0], -0.1307f32 / 0.3081, "black, in the usual normalisation");
}

#[test]
fn parts_are_disjoint_complete_and_stratified() {
    for (n, valid, test) in [(200, 0.1, 0.1), (200, 0.25, 0.5), (131, 0.3, 0.05), (10, 0.2, 0.2)] {
        let data = Arc::new(uneven(n));
        let split = Split::stratified(data.clone(), valid, test, 3).unwrap();
        let parts = [&split.train, &split.valid, &split.test];
        let indices: Vec<usize> = parts.iter().flat_map(|part| part.indices()).copied().collect();
        assert_eq!(indices.len(), n, "disjoint");
        assert_eq!(BTreeSet::from_iter(indices).len(), n, "complete");
        assert_eq!(split.test.len(), (n as f64 * test).round() as usize);
        assert_eq!(split.valid.len(), (n as f64 * valid).round() as usize);
        let whole = class_counts(&*data);
        for part in parts {
            assert!(part.indices().is_sorted());
            for (class, count) in class_counts(part).into_iter().enumerate() {
                let fair = whole[class] as f64 * part.len() as f64 / n as f64;
                assert!((count as f64 - fair).abs() < 2.0, "class {class}: {count}, fair {fair}");
            }
        }
    }
}

#[test]
fn a_split_depends_on_its_seed_only_and_the_test_part_not_on_the_validation_part() {
    let split = |valid, seed| Split::stratified(Arc::new(uneven(200)), valid, 0.2, seed).unwrap();
    let (a, b, other) = (split(0.2, 1), split(0.2, 1), split(0.2, 2));
    assert_eq!(a.train.indices(), b.train.indices());
    assert_eq!(a.valid.indices(), b.valid.indices());
    assert_ne!(a.valid.indices(), other.valid.indices());
    assert_ne!(a.test.indices(), other.test.indices());
    assert_eq!(a.test.indices(), split(0.4, 1).test.indices());
}

#[test]
fn impossible_splits_are_refused() {
    let data = || Arc::new(uneven(10));
    for (valid, test) in
        [(0.0, 0.1), (0.1, 0.0), (1.0, 0.1), (-0.1, 0.1), (f64::NAN, 0.1), (0.6, 0.6), (0.01, 0.1)]
    {
        assert!(Split::stratified(data(), valid, test, 0).is_err(), "{valid} {test}");
    }
}

#[test]
fn fingerprints_tell_contents_apart() {
    let data =
        |pixels: Vec<u8>, labels| ArrayDataset::new("x", &[1, 1, 3], pixels, labels, 3).unwrap();
    let base = data(vec![1, 2, 3, 4, 5, 6], vec![0, 1]);
    let subset = |indices| Subset::new(Arc::new(base.clone()), indices);
    let prints = [
        base.fingerprint(),
        data(vec![1, 2, 3, 4, 5, 7], vec![0, 1]).fingerprint(),
        data(vec![2, 1, 3, 4, 5, 6], vec![0, 1]).fingerprint(),
        data(vec![1, 2, 3, 4, 5, 6], vec![0, 2]).fingerprint(),
        data(vec![1, 2, 3], vec![0]).fingerprint(),
        base.clone().normalized(Normalize::mnist()).fingerprint(),
        subset(vec![0, 1]).fingerprint(),
        subset(vec![1, 0]).fingerprint(),
        subset(vec![0]).fingerprint(),
    ];
    assert_eq!(BTreeSet::from(prints).len(), prints.len(), "{prints:x?}");
    assert_eq!(base.fingerprint(), data(vec![1, 2, 3, 4, 5, 6], vec![0, 1]).fingerprint());
}

#[test]
fn wrong_arguments_of_an_image_data_set_are_named() {
    let build = |pixels, labels, classes| {
        ArrayDataset::new("toys", &[1, 2, 2], pixels, labels, classes).err().unwrap().to_string()
    };
    assert_eq!(
        build(vec![0; 7], vec![0, 0], 1),
        "toys: 7 values for 2 examples of shape [1, 2, 2]"
    );
    assert_eq!(
        build(Vec::<u8>::new(), vec![], 1),
        "toys: 0 values for 0 examples of shape [1, 2, 2]"
    );
    let message = build(vec![0; 8], vec![0, 3], 3);
    assert_eq!(message, "toys: label 3 of example 1 is not below 3 classes");
}

/// All batches of an epoch: indices, labels and input bits.
fn epoch(
    batches: &mut Batches,
    epoch: u64,
    from: usize,
) -> Vec<(Vec<usize>, Vec<usize>, Vec<u32>)> {
    batches.seek(epoch, from);
    let mut all = Vec::new();
    while let Some(batch) = batches.next() {
        let bits = batch.inputs.data().iter().map(|x| x.to_bits()).collect();
        all.push((batch.indices.clone(), batch.labels.clone(), bits));
    }
    all
}

#[test]
fn an_epoch_shows_every_example_once() {
    let data = uneven(103);
    let mut batches = Batches::new(&data, 10).shuffled(5);
    assert_eq!(batches.per_epoch(), 11);
    let mut orders = BTreeSet::new();
    for e in 0..5 {
        let all = epoch(&mut batches, e, 0);
        assert_eq!(
            all.iter().map(|b| b.0.len()).collect::<Vec<_>>(),
            [&[10; 10][..], &[3]].concat()
        );
        for (indices, labels, bits) in &all {
            for (j, &i) in indices.iter().enumerate() {
                assert_eq!(labels[j], data.label(i));
                assert_eq!(bits[j * 6], (i as f32 * (1.0 / 255.0)).to_bits());
            }
        }
        let order: Vec<usize> = all.into_iter().flat_map(|b| b.0).collect();
        assert_eq!(BTreeSet::from_iter(order.clone()).len(), 103);
        orders.insert(order);
    }
    assert_eq!(orders.len(), 5, "another order each epoch");

    let mut plain = Batches::new(&data, 50).drop_last();
    assert_eq!(
        (plain.per_epoch(), plain.next().unwrap().inputs.shape().to_vec()),
        (2, vec![50, 1, 2, 3])
    );
    let order: Vec<usize> = epoch(&mut plain, 3, 0).into_iter().flat_map(|b| b.0).collect();
    assert_eq!(order, (0..100).collect::<Vec<_>>());
}

#[test]
fn some_examples_can_be_batched_alone() {
    let data = uneven(30);
    let chosen = vec![21, 3, 8, 29, 0];
    let indices = |batches: &mut Batches, e| -> Vec<usize> {
        epoch(batches, e, 0).into_iter().flat_map(|batch| batch.0).collect()
    };
    let mut plain = Batches::over(&data, chosen.clone(), 2);
    assert_eq!((plain.per_epoch(), indices(&mut plain, 1)), (3, chosen.clone()));
    let mut shuffled = Batches::over(&data, chosen.clone(), 2).shuffled(0);
    let order = indices(&mut shuffled, 7);
    assert_eq!(BTreeSet::from_iter(order.clone()), BTreeSet::from_iter(chosen.clone()));
    let mut other = Batches::over(&data, chosen.into_iter().rev().collect(), 2).shuffled(0);
    assert_eq!(indices(&mut other, 7), order, "which examples matters, not how they were listed");
}

#[test]
fn seeking_is_as_good_as_walking() {
    let data = uneven(57);
    let shift = RandomShift { max: 1 };
    let fresh = || Batches::new(&data, 8).shuffled(1).augmented(&shift, 1);
    let mut walker = fresh();
    let walked: Vec<_> = (0..3).map(|e| epoch(&mut walker, e, 0)).collect();
    for e in (0..3).rev() {
        for from in 0..=8 {
            let mut seeker = fresh();
            assert_eq!(epoch(&mut seeker, e as u64, from), walked[e][from..]);
            assert_eq!(seeker.position(), (e as u64, 8));
        }
    }
    assert_ne!(epoch(&mut Batches::new(&data, 8).shuffled(2), 0, 0)[0].0, walked[0][0].0);
}

#[test]
fn an_example_is_augmented_alike_in_any_batch_and_differently_in_each_epoch() {
    let data = uneven(64);
    let shift = RandomShift { max: 2 };
    let mut x = vec![0.0; 6];
    data.read(9, &mut x);
    shift.apply(&mut x, &[1, 2, 3], &mut Stream::new(4, Purpose::Augment, 2, 9));
    let expected: Vec<u32> = x.iter().map(|v| v.to_bits()).collect();
    for size in [1, 7, 64] {
        for shuffle in [10, 11] {
            let mut batches = Batches::new(&data, size).shuffled(shuffle).augmented(&shift, 4);
            for (indices, _, bits) in epoch(&mut batches, 2, 0) {
                if let Some(j) = indices.iter().position(|&i| i == 9) {
                    assert_eq!(bits[j * 6..][..6], expected);
                }
            }
        }
    }
    let mut batches = Batches::new(&data, 64).augmented(&HorizontalFlip, 4);
    assert_ne!(epoch(&mut batches, 0, 0), epoch(&mut batches, 1, 0));
}

#[test]
fn large_batches_have_the_same_bits_on_any_number_of_threads() {
    let n = 40;
    let pixels: Vec<u8> = (0..n * 3 * 64 * 64).map(|i| (i * 31 % 251) as u8).collect();
    let data = ArrayDataset::new("large", &[3, 64, 64], pixels, vec![0; n], 1).unwrap();
    let shift = RandomShift { max: 4 };
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| epoch(&mut Batches::new(&data, 20).shuffled(1).augmented(&shift, 1), 0, 0))
    };
    assert_eq!(run(1), run(3));
}

#[test]
#[should_panic(expected = "Subset: index 5, but uneven has 5 examples")]
fn a_subset_stays_inside_its_data() {
    Subset::new(Arc::new(uneven(5)), vec![0, 5]);
}
