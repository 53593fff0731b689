//! Weights that go to other programs and come back, and files that pretend to be such.
//!
//! The golden files `interop*` were written by PyTorch, NumPy and the safetensors package, see
//! `tests/golden/interop.py`; the same script reads what these tests leave in `interop/python` in
//! Cargo's directory for tests (`CARGO_TARGET_TMPDIR`).
#![cfg(feature = "gzip")]

use std::fs;
use std::path::{Path, PathBuf};

use common::{noise, scratch};
use ferrotape::checkpoint::{Checkpoints, LoadOptions, NamedTensor, TrainingState};
use ferrotape::nn::{Layer, Module, Sequential};
use ferrotape::{Error, Graph, Mode, Params, Tape, Tensor, interop};
use proptest::prelude::*;

mod common;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The network of tests/golden/interop.py.
fn network(params: &mut Params) -> Sequential {
    let layers = [
        Layer::conv2d_same(2, 4, 3),
        Layer::Relu,
        Layer::max_pool2d(2, 2),
        Layer::Flatten,
        Layer::linear(4 * 3 * 3, 3),
    ];
    Sequential::new(params, layers)
}

fn outputs(model: &Sequential, params: &Params, x: &Tensor) -> Tensor {
    let mut tape = Tape::new();
    let mut g = Graph::with_mode(&mut tape, params, Mode::Eval);
    let x = g.input(x);
    let y = model.forward(&mut g, x);
    g.tensor(y)
}

fn tensor(named: &NamedTensor<'_>) -> Tensor {
    Tensor::from_vec(named.data.to_vec(), &named.shape[..])
}

#[test]
fn pytorchs_weights_give_pytorchs_outputs() {
    let mut params = Params::new(1);
    let model = network(&mut params);
    let weights = interop::read(golden("interop-torch.safetensors")).unwrap();
    let report = LoadOptions::new().load(&weights, &mut params).unwrap();
    assert_eq!(report.loaded.len(), 4);

    let recorded = interop::read(golden("interop-torch-outputs.npz")).unwrap();
    let [x, expected] = &recorded[..] else { panic!("x and y") };
    let found = outputs(&model, &params, &tensor(x));
    assert_eq!(found.shape().to_vec(), expected.shape);
    let error = found.data().iter().zip(&expected.data[..]).map(|(a, b)| (a - b).abs());
    let error = error.fold(0.0, f32::max);
    assert!(error < 1e-6, "{error:e}");
}

#[test]
fn weights_are_left_for_python_to_read() {
    let dir = scratch("interop", "python");
    let mut params = Params::new(2);
    let model = network(&mut params);
    let x = (0..4 * 72).map(|i| (noise(3, i) % 2001) as f32 / 1000.0 - 1.0).collect();
    let x = Tensor::from_vec(x, [4, 2, 6, 6]);
    let y = outputs(&model, &params, &x);
    let weights = interop::weights(&params);

    let state = TrainingState { params: weights.clone(), ..TrainingState::default() };
    let saved = Checkpoints::open(dir.join("run")).unwrap().save(&state, None).unwrap();
    fs::copy(saved.path, dir.join("model.ftape")).unwrap();
    interop::write(dir.join("model.safetensors"), &weights).unwrap();
    interop::write(dir.join("model.npz"), &weights).unwrap();
    interop::npy::write(dir.join("input.npy"), &x).unwrap();
    let [x, y] = [("x", x), ("y", y)]
        .map(|(name, t)| NamedTensor::new(name, t.shape().to_vec(), t.data().to_vec()));
    interop::write(dir.join("outputs.npz"), &[x.clone(), y]).unwrap();

    assert_eq!(interop::npy::read(dir.join("input.npy")).unwrap(), tensor(&x));
    for name in ["model.safetensors", "model.npz"] {
        assert_eq!(interop::read(dir.join(name)).unwrap(), weights);
    }
}

#[test]
fn files_that_python_wrote_are_read() {
    let weight: Vec<f32> = (0..6).map(|i| i as f32 / 4.0 - 0.5).collect();
    let expected = [
        NamedTensor::new("conv.weight", [2, 3], weight),
        NamedTensor::new("scalar", [], vec![0.1]),
    ];
    for name in ["interop.npz", "interop-compressed.npz", "interop.safetensors"] {
        let mut tensors = interop::read(golden(name)).unwrap();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(tensors, expected, "{name}");
    }
}

#[test]
fn every_type_and_order_becomes_row_major_f32() {
    let numbers = [0.0_f32, 1.0, 2.0, 5.0, 100.0, 127.0];
    for (name, count) in [("interop-types.npz", 13), ("interop-types.safetensors", 13)] {
        let tensors = interop::read(golden(name)).unwrap();
        assert_eq!(tensors.len(), count, "{name}");
        for NamedTensor { name, shape, data } in tensors {
            assert_eq!(shape, [2, 3], "{name}");
            let expected = if name == "bool" { numbers.map(|x| x.min(1.0)) } else { numbers };
            assert_eq!(data[..], expected, "{name}");
        }
    }
    let fortran = interop::npy::read(golden("interop-fortran.npy")).unwrap();
    assert_eq!(fortran, Tensor::from_vec(numbers.map(|x| x / 8.0).to_vec(), [2, 3]));
}

#[test]
fn writing_replaces_a_file_completely_or_not_at_all() {
    let dir = scratch("interop", "atomic");
    fs::create_dir_all(&dir).unwrap();
    for name in ["w.safetensors", "w.npz"] {
        let path = dir.join(name);
        let one = [NamedTensor::new("w", [2], vec![1.0, 2.0])];
        interop::write(&path, &one).unwrap();
        let twice = [one[0].clone(), one[0].clone()];
        let error = interop::write(&path, &twice).unwrap_err().to_string();
        assert!(error.contains("two tensors named \"w\""), "{error}");
        assert_eq!(interop::read(&path).unwrap(), one);
        let two = [NamedTensor::new("v", [0, 3], vec![]), NamedTensor::new("w", [], vec![3.0])];
        interop::write(&path, &two).unwrap();
        assert_eq!(interop::read(&path).unwrap(), two);
        assert!(interop::write(dir.join("missing").join(name), &two).is_err());
    }
    let reserved = [NamedTensor::new("__metadata__", [], vec![1.0])];
    let error = interop::write(dir.join("r.safetensors"), &reserved).unwrap_err().to_string();
    assert!(error.contains("reserves the name"), "{error}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 2, "nothing is left behind");
}

#[test]
fn what_cannot_be_read_says_why() {
    let dir = scratch("interop", "refused");
    fs::create_dir_all(dir.join("x.npz")).unwrap();
    for (name, reason) in [
        ("missing.npz", "cannot open"),
        ("x.npz", "not a regular file"),
        ("x.onnx", "expected a name that ends in .safetensors or .npz"),
    ] {
        let error = interop::read(dir.join(name)).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains(name), "{error}");
    }
    let weights = interop::read(golden("interop-torch.safetensors")).unwrap();
    let mut params = Params::new(0);
    Sequential::new(&mut params, [Layer::linear(36, 3)]);
    let before = params.clone();
    let Err(Error::Load { report }) = LoadOptions::new().load(&weights, &mut params) else {
        panic!("these weights do not fit");
    };
    assert_eq!(report.mismatched.len() + report.unexpected.len(), 4);
    assert_eq!(params, before);
}

/// What reads one of the three formats.
type Reader = fn(Vec<u8>) -> ferrotape::Result<Vec<NamedTensor<'static>>>;

const READERS: [(Reader, &[&str]); 3] = [
    (|bytes| interop::safetensors::from_bytes(bytes), &["interop.safetensors"]),
    (|bytes| interop::npz::from_bytes(bytes), &["interop.npz", "interop-compressed.npz"]),
    (|bytes| interop::npy::from_bytes(bytes).map(|_| Vec::new()), &["interop-fortran.npy"]),
];

#[test]
fn every_truncation_and_many_mutations_are_errors_or_valid_files() {
    for (read, names) in READERS {
        for name in names {
            let bytes = fs::read(golden(name)).unwrap();
            assert!(read(bytes.clone()).is_ok());
            for len in 0..bytes.len() {
                assert!(read(bytes[..len].to_vec()).is_err(), "{name} cut at {len}");
            }
            for at in 0..bytes.len() {
                for flip in [1, 0x80, 0xff] {
                    let mut bad = bytes.clone();
                    bad[at] ^= flip;
                    let _ = read(bad);
                }
            }
            for seed in 0..10_000 {
                let mut bad = bytes.clone();
                for i in 0..1 + noise(seed, 0) % 3 {
                    let at = noise(seed, 2 * i + 1) as usize % bad.len();
                    // Digits and punctuation keep a header alive, so that it is believed or not.
                    bad[at] = b"0123456789[],:\"{}()'"[noise(seed, 2 * i + 2) as usize % 20];
                }
                let _ = read(bad);
            }
        }
    }
}

#[test]
fn the_fuzz_corpus_is_replayed() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for ((read, _), name) in READERS.into_iter().zip(["safetensors", "npz", "npy"]) {
        for entry in fs::read_dir(corpus.join(name)).unwrap() {
            let _ = read(fs::read(entry.unwrap().path()).unwrap());
        }
    }
    for (name, valid) in [("matrix", true), ("fortran", true), ("truncated", false)] {
        let read = interop::npy::read(corpus.join("npy").join(name));
        assert_eq!(read.is_ok(), valid, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]

    /// Names, shapes, order and every bit of every value, NaNs included, come back.
    #[test]
    fn any_tensors_survive(
        tensors in prop::collection::btree_map(
            "[a-zé.\"\\\\/ ]{1,12}",
            prop::collection::vec(0_usize..4, 0..4).prop_flat_map(|shape| {
                let len = shape.iter().product::<usize>();
                (Just(shape), prop::collection::vec(any::<u32>(), len))
            }),
            0..6,
        ),
    ) {
        let dir = scratch("interop", "any");
        fs::create_dir_all(&dir).unwrap();
        let tensors: Vec<NamedTensor<'_>> = tensors
            .into_iter()
            .map(|(name, (shape, bits))| {
                NamedTensor::new(name, shape, bits.into_iter().map(f32::from_bits).collect::<Vec<_>>())
            })
            .collect();
        let bits = |tensors: &[NamedTensor<'_>]| -> Vec<_> {
            let bits = |t: &NamedTensor<'_>| t.data.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            tensors.iter().map(|t| (t.name.clone(), t.shape.clone(), bits(t))).collect()
        };
        for name in ["any.safetensors", "any.npz"] {
            interop::write(dir.join(name), &tensors).unwrap();
            prop_assert_eq!(bits(&interop::read(dir.join(name)).unwrap()), bits(&tensors));
        }
    }
}
