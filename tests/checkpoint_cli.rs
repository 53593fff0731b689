//! The command line, and weights that go to other programs and come back.
#![cfg(all(feature = "cli", feature = "gzip"))]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::{loss, scratch, state};
use ferrotape::checkpoint::{
    Checkpoints, NamedTensor, load_npz, load_safetensors, npz_from_bytes, save_npz,
    save_safetensors,
};

mod common;

fn ferrotape(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_ferrotape")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().expect("no signal"), text(stdout), text(stderr))
}

fn json(arguments: &[&str]) -> serde_json::Value {
    let (_, out, _) = ferrotape(&[arguments, &["--json"]].concat());
    serde_json::from_str(&out).unwrap()
}

fn run_dir(name: &str) -> std::path::PathBuf {
    let dir = scratch("checkpoint_cli", name);
    let mut checkpoints = Checkpoints::open(&dir).unwrap().keep_last(9);
    for step in 0..5 {
        checkpoints.save(&state(step), loss(1.0 / (step as f64 + 1.0))).unwrap();
    }
    dir
}

#[test]
fn a_run_is_listed_inspected_compared_and_pruned() {
    let dir = run_dir("run");
    let dir_text = dir.to_str().unwrap();
    let file = |generation: u64| format!("{dir_text}/ckpt-{generation:08}.ftape");

    let list = json(&["ls", dir_text, "--verify"]);
    let rows = list["checkpoints"].as_array().unwrap();
    assert_eq!(rows.len(), 5);
    assert_eq!(rows[4]["roles"], serde_json::json!(["last", "best"]));
    assert!(rows.iter().all(|row| row["verified"] == true));
    let (code, table, _) = ferrotape(&["ls", dir_text]);
    assert_eq!((code, table.lines().count()), (0, 6));
    assert!(table.contains("valid_loss 0.200000"), "{table}");

    let (_, text, _) = ferrotape(&["inspect", &file(3)]);
    for part in ["epoch 3, batch 0, step 30", "sgd lr=0.05 momentum=0.9", "arch = conv(1, 6, 5)"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(
        json(&["inspect", &file(3)])["tensors"][0]["shape"],
        serde_json::json!([6, 1, 5, 5])
    );

    let same = ferrotape(&["diff", &file(3), &file(3)]);
    assert_eq!(same.0, 0);
    let (code, text, _) = ferrotape(&["diff", &file(2), &file(3)]);
    assert_eq!(code, 1);
    assert!(text.contains("conv.bias: largest difference 1.000e0, rms 1.000e0"), "{text}");

    assert_eq!(ferrotape(&["verify", dir_text]).0, 0);
    let mut bytes = fs::read(file(2)).unwrap();
    let at = bytes.len() - 500;
    bytes[at] ^= 1;
    fs::write(file(2), bytes).unwrap();
    let (code, text, _) = ferrotape(&["verify", dir_text]);
    assert_eq!(code, 1);
    assert_eq!(text.matches(": valid").count(), 4);
    assert!(text.contains("corrupt: tensor"), "{text}");

    assert_eq!(ferrotape(&["pin", dir_text, "0"]).0, 0);
    let removed = json(&["prune", dir_text, "--keep-last", "2", "--keep-best", "0"]);
    assert_eq!(removed["removed"].as_array().unwrap().len(), 2);
    assert!(Path::new(&file(0)).exists() && !Path::new(&file(1)).exists());
}

#[test]
fn no_argument_makes_it_panic() {
    let missing = scratch("checkpoint_cli", "missing");
    let missing = missing.to_str().unwrap();
    let all: [&[&str]; 16] = [
        &[],
        &["frobnicate"],
        &["ls"],
        &["ls", missing],
        &["ls", "a", "b"],
        &["ls", "--frobnicate"],
        &["inspect", missing],
        &["inspect", "/dev/null"],
        &["verify"],
        &["diff", missing, missing],
        &["export", missing, "x.onnx"],
        &["import", missing, missing],
        &["pin", missing, "0"],
        &["prune", missing],
        &["prune", ".", "--keep-last"],
        &["prune", ".", "--keep-last", "many"],
    ];
    for arguments in all {
        let (code, _, error) = ferrotape(arguments);
        assert_eq!(code, 2, "{arguments:?}: {error}");
        assert!(error.starts_with("ferrotape: ") && error.len() > 20, "{arguments:?}: {error}");
    }
    assert!(!Path::new(missing).exists(), "looking does not create");
    assert!(ferrotape(&["--help"]).1.contains("Usage"));
    assert_eq!(ferrotape(&["--version"]).0, 0);
    assert_eq!(ferrotape(&["verify", missing]).0, 1);
}

#[test]
fn weights_go_out_and_come_back_with_the_same_bits() {
    let dir = run_dir("export");
    let from = dir.join("ckpt-00000003.ftape");
    let expected = [state(3).params, state(3).buffers].concat();
    for name in ["weights.safetensors", "weights.npz"] {
        let out = dir.join(name);
        let paths = [from.to_str().unwrap(), out.to_str().unwrap()];
        let (code, _, error) = ferrotape(&["export", paths[0], paths[1]]);
        assert_eq!(code, 0, "{error}");
        let back = if name.ends_with("npz") { load_npz(&out) } else { load_safetensors(&out) };
        assert_eq!(back.unwrap(), expected);
        let imported = scratch("checkpoint_cli", &format!("imported-{name}"));
        let (code, _, error) = ferrotape(&["import", paths[1], imported.to_str().unwrap()]);
        assert_eq!(code, 0, "{error}");
        let loaded = Checkpoints::open(&imported).unwrap().load_latest().unwrap().unwrap();
        assert_eq!(loaded.state.params, expected);
    }
    let twice = [NamedTensor::new("w", [1], vec![1.0]), NamedTensor::new("w", [1], vec![2.0])];
    assert!(save_safetensors(dir.join("x.safetensors"), &twice).is_err());
    assert!(save_npz(dir.join("x.npz"), &twice).is_err());
    assert!(!dir.join("x.npz").exists());
}

#[test]
fn files_that_python_wrote_are_read() {
    // Written by tests/golden/interop.py with NumPy and the safetensors package.
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let weight: Vec<f32> = (0..6).map(|i| i as f32 / 4.0 - 0.5).collect();
    let expected = [
        NamedTensor::new("conv.weight", [2, 3], weight),
        NamedTensor::new("scalar", [], vec![0.1]),
    ];
    for name in ["interop.npz", "interop-compressed.npz"] {
        assert_eq!(load_npz(golden.join(name)).unwrap(), expected, "{name}");
    }
    let mut tensors = load_safetensors(golden.join("interop.safetensors")).unwrap();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(tensors, expected);
}

#[test]
fn every_truncation_and_byte_flip_of_an_archive_is_an_error_or_an_archive() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for name in ["interop.npz", "interop-compressed.npz"] {
        let bytes = fs::read(golden.join(name)).unwrap();
        for len in 0..bytes.len() {
            assert!(npz_from_bytes(&bytes[..len]).is_err(), "{name} cut at {len}");
        }
        for at in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bad = bytes.clone();
                bad[at] ^= flip;
                let _ = npz_from_bytes(&bad);
            }
        }
    }
}

#[test]
fn other_rules_are_replayed_over_a_log_of_any_framework() {
    let dir = scratch("checkpoint_cli", "replay");
    fs::create_dir_all(&dir).unwrap();
    let log = dir.join("log.jsonl");
    let losses = [1.0, 0.8, 0.85, 0.9, 0.7, 0.75, 0.8, 0.9];
    let lines: Vec<String> = (1..)
        .zip(losses)
        .map(|(epoch, loss)| {
            format!(
                r#"{{"epoch":{epoch},"train_loss":{},"valid_loss":{loss},"note":"x"}}"#,
                0.5 * loss
            )
        })
        .collect();
    fs::write(&log, lines.join("\n")).unwrap();
    let log = log.to_str().unwrap();

    let rules = ["--rule", "patience(2)", "--rule", "gl(50)", "--rule", "pq(0.75,k=2)", "--json"];
    let (code, out, _) = ferrotape(&[&["replay", log], &rules[..]].concat());
    assert_eq!(code, 0);
    let found: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found.len(), 3);
    assert_eq!(found[0]["rule"], "patience(2)");
    assert_eq!((&found[0]["stop_epoch"], &found[0]["best_epoch"]), (&4.into(), &2.into()));
    assert!((found[0]["regret"].as_f64().unwrap() - 0.1).abs() < 1e-12);
    assert_eq!((&found[0]["best_value"], &found[0]["saved"]), (&0.8.into(), &0.5.into()));
    assert!(found[1]["stop_epoch"].is_null());

    let (code, table, _) = ferrotape(&["replay", log, "--rule", "patience(2)"]);
    assert!(code == 0 && table.contains("has not improved for 2 evaluations"), "{table}");
    let (code, _, error) = ferrotape(&["replay", log, "--rule", "patience(zero)"]);
    assert!(code == 2 && error.contains("patience(zero)"), "{error}");
    let (code, _, error) = ferrotape(&["replay", log]);
    assert!(code == 2 && error.contains("--rule"), "{error}");
}
