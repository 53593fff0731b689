//! The command line, as a user meets it: the real program, its output, its exit codes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::LazyLock;
use std::time::SystemTime;

use common::program::{close, ferrotape, json, ok, output, program, start};
use common::{loss, scratch, state};
use ferrotape::checkpoint::{Checkpoints, NamedTensor, TrainingState};
use ferrotape::nn::{Layer, Module, Sequential};
use ferrotape::{Params, interop};
use proptest::prelude::*;
use serde_json::{Value, json};

mod common;

const COMMANDS: [&str; 14] = [
    "train", "eval", "predict", "ls", "inspect", "verify", "diff", "replay", "report", "export",
    "import", "prune", "pin", "unpin",
];

/// A run of five checkpoints, of which the last is the best, or another.
fn run_dir(name: &str, losses: [f64; 5]) -> PathBuf {
    let dir = scratch("cli", name);
    let mut checkpoints = Checkpoints::open(&dir).unwrap().keep_last(9);
    for (step, value) in (0..).zip(losses) {
        checkpoints.save(&state(step), loss(value)).unwrap();
    }
    close(checkpoints);
    dir
}

/// The state in a run directory.
fn load(dir: &Path) -> TrainingState<'static> {
    let mut checkpoints = Checkpoints::open(dir).unwrap();
    let loaded = checkpoints.load_latest().unwrap().unwrap();
    close(checkpoints);
    loaded.state
}

const FALLING: [f64; 5] = [1.0, 0.5, 0.25, 0.125, 0.0625];

fn file(dir: &Path, generation: u64) -> String {
    format!("{}/ckpt-{generation:08}.ftape", dir.display())
}

fn flip_a_bit(path: &str) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() - 500;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn ls_shows_every_checkpoint_and_finds_the_damaged_one() {
    let dir = run_dir("ls", FALLING);
    let text = dir.to_str().unwrap();
    let list = json(&["ls", text]);
    let rows = list["checkpoints"].as_array().unwrap();
    assert_eq!(rows.len(), 5);
    assert_eq!(rows[4]["roles"], json!(["last", "best"]));
    assert_eq!(rows[0]["roles"], json!(["last"]), "as the run has noted");
    assert!(rows.iter().all(|row| row["verified"] == true));
    assert_eq!(ok(&["pin", text, "1"]), "generation 1 is pinned\n");
    let table = ok(&["ls", text]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 6);
    let columns: Vec<&str> = lines[0].split_whitespace().collect();
    let expected = ["generation", "epoch", "step", "metric", "value", "roles", "size", "verified"];
    assert_eq!(columns, expected);
    assert!(lines[2].contains("valid_loss  0.500000  last pinned"), "{table}");
    assert!(lines[1..].iter().all(|line| line.len() == lines[1].len()), "aligned:\n{table}");

    flip_a_bit(&file(&dir, 2));
    fs::write(file(&dir, 9), "no checkpoint").unwrap();
    let (code, table, _) = ferrotape(&["ls", text]);
    assert_eq!(code, 1);
    assert!(table.contains("NO\n") && table.contains("corrupt: tensor"), "{table}");
    assert!(table.contains("ckpt-00000009.ftape: not a Ferrotape checkpoint"), "{table}");
    let list = json(&["ls", text]);
    assert_eq!(list["damaged"].as_array().unwrap().len(), 2);
    fs::remove_file(file(&dir, 9)).unwrap();
    assert_eq!(ferrotape(&["ls", text, "--quick"]).0, 0);
    assert!(json(&["ls", text, "--quick"])["checkpoints"][2]["verified"].is_null());
}

#[test]
fn inspect_shows_what_is_in_a_file_or_in_the_newest_of_a_run() {
    let dir = run_dir("inspect", [1.0, 0.1, 0.2, 0.3, 0.4]);
    let text = dir.to_str().unwrap();
    let shown = ok(&["inspect", &file(&dir, 3)]);
    for part in [
        "epoch 3, batch 0, step 30",
        "sgd lr=0.05 momentum=0.9",
        "config      arch = conv(1, 6, 5)",
        "param   conv.weight      f32   [6, 1, 5, 5]  600 B",
        "2 parameters with 156 weights",
        "the last 3 of 3 evaluations",
    ] {
        assert!(shown.contains(part), "{part}:\n{shown}");
    }
    assert!(ok(&["inspect", &file(&dir, 3), "--history", "1"]).contains("the last 1 of 3"));
    let document = json(&["inspect", text]);
    assert_eq!(document["generation"], 4);
    assert_eq!(document["tensors"][0]["shape"], json!([6, 1, 5, 5]));
    assert_eq!(document["history"].as_array().unwrap().len(), 4);
    assert_eq!(document["history"][1]["valid_loss"], 0.5);
    assert_eq!(json(&["inspect", text, "--best"])["generation"], 1);

    // The newest one that is valid, and a word about the other.
    flip_a_bit(&file(&dir, 4));
    let (code, out, error) = ferrotape(&["inspect", text]);
    assert!(code == 0 && out.contains("generation  3"), "{out}");
    assert!(error.contains("passed over") && error.contains("ckpt-00000004"), "{error}");
}

#[test]
fn verify_reads_every_byte() {
    let dir = run_dir("verify", FALLING);
    let text = dir.to_str().unwrap();
    assert_eq!(ok(&["verify", text, &file(&dir, 0)]).matches(": valid").count(), 6);
    flip_a_bit(&file(&dir, 2));
    let (code, out, _) = ferrotape(&["verify", text]);
    assert_eq!((code, out.matches(": valid").count()), (1, 4));
    let rows = json(&["verify", text]);
    assert_eq!(rows[2]["valid"], false);
    assert!(rows[2]["reason"].as_str().unwrap().contains("wrong checksum"));
}

#[test]
fn diff_says_what_changed_and_by_how_much() {
    let dir = run_dir("diff", FALLING);
    let same = ferrotape(&["diff", &file(&dir, 3), &file(&dir, 3)]);
    assert!(same.0 == 0 && same.1.contains("the same state"), "{}", same.1);
    let (code, text, _) = ferrotape(&["diff", &file(&dir, 2), &file(&dir, 3)]);
    assert_eq!(code, 1);
    assert!(text.contains("epoch: 2 -> 3"), "{text}");
    assert!(text.contains("conv.bias        [6]                  1.000e0"), "{text}");
    assert!(text.contains("evaluations: 2 -> 3") && text.contains("6 of 6 tensors"), "{text}");

    // A tensor that doubles changes by its own norm.
    let mut other = state(3);
    other.params[1].data.to_mut().iter_mut().for_each(|weight| *weight *= 2.0);
    other.optimizer.hyper[0].1 = 0.01;
    other.buffers.pop();
    other.config.push(("note".into(), "x".into()));
    let other_dir = scratch("cli", "diff-other");
    Checkpoints::open(&other_dir).unwrap().save(&other, None).unwrap();
    let document = json(&["diff", &file(&dir, 3), other_dir.to_str().unwrap()]);
    assert_eq!(document["same"], false);
    let setting = |name: &str, a: Value, b: Value| json!({ "name": name, "a": a, "b": b });
    let settings = [
        setting("config note", Value::Null, json!("x")),
        setting("optimizer lr", json!("0.05"), json!("0.01")),
    ];
    assert_eq!(document["settings"], json!(settings));
    let tensors = document["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), 2);
    assert_eq!((&tensors[0]["name"], &tensors[0]["relative"]), (&json!("conv.bias"), &json!(1.0)));
    assert_eq!(tensors[1]["what"], "only in the first");
}

#[test]
fn prune_removes_what_no_role_needs_and_a_dry_run_nothing() {
    let dir = run_dir("prune", [0.1, 0.5, 0.4, 0.3, 0.2]);
    let text = dir.to_str().unwrap();
    ok(&["pin", text, "1"]);
    assert_eq!(ok(&["prune", text]), "0 removed, 5 kept\n", "the run keeps the last 9");
    let before = snapshot(&dir);
    let dry = json(&["prune", text, "--keep-last", "2", "--dry-run"]);
    assert_eq!(dry, json!({ "dry_run": true, "removed": [file(&dir, 2)], "kept": 4 }));
    assert_eq!(snapshot(&dir), before);
    let done = json(&["prune", text, "--keep-last", "2"]);
    assert_eq!((&done["removed"], &done["kept"]), (&dry["removed"], &dry["kept"]));
    ok(&["unpin", text, "1"]);
    let out = ok(&["prune", text, "--keep-last", "2", "--keep-best", "0"]);
    assert!(out.ends_with("2 removed, 2 kept\n"), "{out}");
    assert!(!Path::new(&file(&dir, 0)).exists() && Path::new(&file(&dir, 3)).exists());
}

#[test]
fn weights_go_out_and_come_back_with_the_same_bits() {
    let dir = run_dir("export", [1.0, 0.5, 0.25, 0.1, 0.2]);
    let expected = [state(3).params, state(3).buffers].concat();
    for name in ["weights.safetensors", "weights.npz"] {
        let out = dir.join(name);
        let out = out.to_str().unwrap();
        ok(&["export", dir.to_str().unwrap(), "--best", "--to", out]);
        assert_eq!(interop::read(out).unwrap(), expected);
        let imported = scratch("cli", &format!("imported-{name}"));
        ok(&["import", out, "--run-dir", imported.to_str().unwrap()]);
        assert_eq!(load(&imported).params, expected);

        // Like the checkpoint it came from: parameters and buffers find their places again.
        let like = scratch("cli", &format!("like-{name}"));
        ok(&["import", out, "--run-dir", like.to_str().unwrap(), "--like", &file(&dir, 0)]);
        let loaded = load(&like);
        assert_eq!((loaded.params, loaded.buffers), (state(3).params, state(3).buffers));
        assert!(loaded.optimizer.slots.is_empty() && loaded.cursor.step == 0);

        let (code, _, error) = ferrotape(&["import", out, "--run-dir", like.to_str().unwrap()]);
        assert!(code == 1 && error.contains("already holds checkpoints"), "{error}");
        assert_eq!(
            json(&["export", &file(&dir, 2), "--all", "--to", out])["tensors"],
            expected.len() + 2
        );
        assert!(interop::read(out).unwrap().iter().any(|t| t.name == "optimizer.conv.bias"));
    }
}

#[test]
fn imported_weights_must_fit_the_architecture() {
    let dir = scratch("cli", "arch");
    fs::create_dir_all(&dir).unwrap();
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let mut params = Params::new(5);
    let model =
        Sequential::new(&mut params, [Layer::linear(3, 2), Layer::Relu, Layer::linear(2, 1)]);
    fs::write(at("arch.json"), model.architecture()).unwrap();
    let wrapped: Vec<NamedTensor<'_>> = interop::weights(&params)
        .into_iter()
        .map(|tensor| NamedTensor { name: format!("module.{}", tensor.name), ..tensor })
        .collect();
    interop::write(at("w.safetensors"), &wrapped).unwrap();
    interop::write(at("trunk.npz"), &wrapped[..2]).unwrap();

    let rename = ["--rename", "module.*=*"];
    let import = |input: &str, arch: &str, to: &str, more: &[&str]| {
        let [input, to] = [at(input), at(to)];
        ferrotape(&[&["import", &input, "--run-dir", &to, "--arch", arch], more].concat())
    };
    let (code, _, error) = import("w.safetensors", &at("arch.json"), "a", &[]);
    assert!(code == 1 && error.contains("missing in the checkpoint: 0.weight"), "{error}");
    assert!(!dir.join("a").exists(), "refused before anything is created");
    assert_eq!(import("w.safetensors", &at("arch.json"), "a", &rename).0, 0);
    // The checkpoint can be used without the code that made it.
    let loaded = load(&dir.join("a"));
    let mut same = Params::new(9);
    let text = loaded.config("architecture").unwrap();
    assert_eq!(Sequential::from_architecture(&mut same, text).unwrap().layers(), model.layers());
    loaded.load_into(&mut same).unwrap();
    assert_eq!(same.flat(), params.flat());

    let text = model.architecture();
    let (code, out, _) =
        import("trunk.npz", &text, "b", &[&rename[..], &["--allow-missing", "2.*"]].concat());
    assert!(code == 0 && out.contains("left alone: 2.bias"), "{out}");
    for (arch, reason) in [
        ("[{\"layer\":\"attention\"}]", "unknown variant"),
        ("[{\"layer\":\"linear\",\"inputs\":1000000000000,\"outputs\":9}]", "more than 1073741824"),
        ("nowhere.json", "cannot open nowhere.json"),
    ] {
        let (code, _, error) = import("w.safetensors", arch, "c", &[]);
        assert!(code == 1 && error.contains(reason), "{error}");
    }
    // A hostile checkpoint to be like.
    let odd = [NamedTensor::new("w", [1; 9], vec![0.0])];
    let odd = TrainingState { params: odd.to_vec(), ..TrainingState::default() };
    Checkpoints::open(dir.join("odd")).unwrap().save(&odd, None).unwrap();
    let (code, _, error) =
        ferrotape(&["import", &at("w.safetensors"), "--run-dir", &at("d"), "--like", &at("odd")]);
    assert!(code == 1 && error.contains("none above rank"), "{error}");
}

#[test]
fn other_rules_are_replayed_over_a_log_of_any_framework() {
    let dir = scratch("cli", "replay");
    fs::create_dir_all(&dir).unwrap();
    let log = dir.join("log.jsonl");
    let losses = [1.0, 0.8, 0.85, 0.9, 0.7, 0.75, 0.8, 0.9];
    let lines: Vec<String> = (1..)
        .zip(losses)
        .map(|(epoch, loss)| {
            json!({ "epoch": epoch, "train_loss": 0.5 * loss, "valid_loss": loss, "note": "x" })
                .to_string()
        })
        .collect();
    fs::write(&log, lines.join("\n")).unwrap();
    let log = log.to_str().unwrap();

    let rules = ["--rule", "patience(2)", "--rule", "gl(50)", "--rule", "pq(0.75,k=2)", "--json"];
    let out = ok(&[&["replay", log], &rules[..]].concat());
    let found: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found.len(), 3);
    assert_eq!(found[0]["rule"], "patience(2)");
    assert_eq!((&found[0]["stop_epoch"], &found[0]["best_epoch"]), (&4.into(), &2.into()));
    assert!((found[0]["regret"].as_f64().unwrap() - 0.1).abs() < 1e-12);
    assert_eq!((&found[0]["best_value"], &found[0]["saved"]), (&0.8.into(), &0.5.into()));
    assert!(found[1]["stop_epoch"].is_null());

    let table = ok(&["replay", log, "--rule", "patience(2)"]);
    assert!(table.contains("has not improved for 2 evaluations"), "{table}");
    assert!(table.starts_with("8 evaluations, the last at epoch 8\n"), "{table}");
    let single = dir.join("single.jsonl");
    fs::write(&single, "{\"epoch\": 0.5, \"valid_loss\": 1}\n").unwrap();
    let single = ok(&["replay", single.to_str().unwrap(), "--rule", "gl(5)"]);
    assert!(single.starts_with("1 evaluation, the last at epoch 1\n"), "{single}");
    // A rule that this log has no numbers for says so and does not stop.
    let table = ok(&["replay", log, "--rule", "on(f1,max,patience(2))"]);
    assert!(table.contains("cannot be applied: ") && table.contains("not measured"), "{table}");

    let (code, _, error) = ferrotape(&["replay", log, "--rule", "patience(zero)"]);
    assert!(code == 2 && error.contains("patience(zero)"), "{error}");
    let (code, _, error) = ferrotape(&["replay", log]);
    assert!(code == 2 && error.contains("--rule"), "{error}");
    fs::write(dir.join("bad.jsonl"), "{\"epoch\": 1}\n[").unwrap();
    let bad = dir.join("bad.jsonl");
    let (code, _, error) = ferrotape(&["replay", bad.to_str().unwrap(), "--rule", "gl(5)"]);
    assert!(code == 1 && error.contains("line 2"), "{error}");
}

#[test]
fn a_report_is_written_and_never_over_another_unasked() {
    let dir = run_dir("report", FALLING);
    let path = dir.join("report.html");
    let out = ok(&["report", dir.to_str().unwrap()]);
    assert_eq!(out, format!("report on 4 evaluations written to {}\n", path.display()));
    let page = fs::read_to_string(&path).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    assert!(page.contains("ckpt-00000004.ftape") && page.contains("assumed"));

    let (code, _, error) = ferrotape(&["report", dir.to_str().unwrap()]);
    assert!(code == 1 && error.contains("exists already"), "{error}");

    let log = dir.join("other.jsonl");
    fs::write(&log, "{\"epoch\": 1, \"valid_loss\": 0.5}\n{\"epoch\": 2, \"valid_loss\": NaN}\n")
        .unwrap();
    let rule = ["--rule", "target(0.6)", "-o", path.to_str().unwrap()];
    let answer = json(&[&["report", log.to_str().unwrap()], &rule[..]].concat());
    assert_eq!(answer["evaluations"], 2);
    let page = fs::read_to_string(&path).unwrap();
    assert!(page.contains("target(0.6)") && !page.contains("patience(3)"));
    let (code, _, error) = ferrotape(&["report", "/nowhere.jsonl"]);
    assert!(code == 1 && error.contains("/nowhere.jsonl"), "{error}");
}

#[test]
fn rules_are_replayed_over_a_run_directory() {
    let dir = run_dir("replay-run", FALLING);
    for source in [dir.to_str().unwrap(), &file(&dir, 4)] {
        let out = ok(&["replay", source, "--rule", "target(0.4)", "--json"]);
        let found: Value = serde_json::from_str(&out).unwrap();
        // state(4) records the losses 1, 1/2, 1/3, 1/4 at epochs 0 to 3.
        assert_eq!((&found["stop_epoch"], &found["best_epoch"]), (&2.into(), &2.into()), "{out}");
    }
    let (code, _, error) = ferrotape(&["replay", &file(&dir, 0), "--rule", "gl(5)"]);
    assert!(code == 1 && error.contains("no evaluation"), "{error}");
}

/// Names, sizes, times and contents of everything in a directory.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let file = |path: PathBuf| {
        let changed = fs::metadata(&path).unwrap().modified().unwrap();
        let bytes = fs::read(&path).unwrap_or_default();
        (path, (changed, bytes))
    };
    entries.map(file).collect()
}

#[test]
fn looking_at_a_run_in_progress_disturbs_nothing() {
    let dir = run_dir("looking", FALLING);
    let text = dir.to_str().unwrap();
    // The run goes on: its lock is held, and a save is half done.
    let training = Checkpoints::open(&dir).unwrap();
    fs::write(dir.join(".ckpt-00000005.tmp"), "half of a checkpoint").unwrap();
    let before = snapshot(&dir);
    let out = scratch("cli", "looking-out");
    fs::create_dir_all(&out).unwrap();
    let out = out.join("w.npz");
    for arguments in [
        &["ls", text][..],
        &["inspect", text],
        &["verify", text],
        &["diff", text, &file(&dir, 4)],
        &["replay", text, "--rule", "patience(1)"],
        &["export", text, "--to", out.to_str().unwrap()],
        &["prune", text, "--dry-run"],
    ] {
        ok(arguments);
        assert_eq!(snapshot(&dir), before, "{arguments:?}");
    }
    for arguments in [&["prune", text][..], &["pin", text, "1"]] {
        let (code, _, error) = ferrotape(arguments);
        assert!(code == 1 && error.contains("in use"), "{error}");
        assert_eq!(snapshot(&dir), before, "{arguments:?}");
    }
    drop(training);

    // What is not there is not created either, and no directory becomes a run by being asked.
    let missing = scratch("cli", "missing");
    let other = scratch("cli", "other");
    fs::create_dir_all(&other).unwrap();
    for command in COMMANDS {
        let more: &[&str] = match command {
            "diff" | "pin" | "unpin" => &["0"],
            "replay" => &["--rule", "gl(5)"],
            "export" => &["--to", "out.npz"],
            "eval" | "predict" => &["t.csv"],
            "import" => &["--run-dir", missing.to_str().unwrap()],
            _ => &[],
        };
        for dir in [&missing, &other] {
            let (code, out, error) = ferrotape(&[&[command, dir.to_str().unwrap()], more].concat());
            let empty = command == "ls" && dir == &other;
            assert_eq!(code, i32::from(!empty), "{command}: {out}{error}");
        }
    }
    assert!(!missing.exists() && !Path::new("out.npz").exists());
    assert_eq!(fs::read_dir(other).unwrap().count(), 0);
}

#[test]
fn help_and_usage() {
    let help = ok(&["--help"]);
    assert!(help.contains("Exit code: 0"));
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is in the list");
        let text = ok(&[command, "--help"]);
        assert!(text.contains(&format!("Usage: ferrotape {command}")), "{text}");
        assert_eq!(text, ok(&["help", command]));
        assert_eq!(text, ok(&[command, "x", "--json", "-h"]));
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        let (code, _, error) = ferrotape(&[command, "--frobnicate"]);
        assert!(code == 2 && error.contains("--frobnicate"), "{command}: {error}");
    }
    assert_eq!(ok(&["help"]), help);
    assert!(ok(&["--version"]).starts_with("ferrotape "));
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["--frobnicate"],
        &["help", "frobnicate"],
        &["ls"],
        &["ls", "a", "b"],
        &["ls", "-q", "a"],
        &["ls", "a", "--quick=yes"],
        &["verify"],
        &["diff", "a"],
        &["export", "a"],
        &["import", "a.npz"],
        &["import", "a.npz", "--run-dir", "b", "--like", "c", "--arch", "d"],
        &["import", "a.npz", "--run-dir", "b", "--rename", "x=y"],
        &["import", "a.npz", "--run-dir", "b", "--arch", "c", "--rename", "x"],
        &["pin", "a", "first"],
        &["prune", "a", "--keep-last"],
        &["prune", "a", "--keep-last", "-1"],
    ] {
        let (code, out, error) = ferrotape(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {error}");
        assert!(error.starts_with("ferrotape: ") && error.ends_with("--help\n"), "{error}");
    }
    // What is missing, surplus or not understood is named as the help names it.
    for (arguments, message) in [
        (&["verify"][..], "verify: missing FILE|RUN_DIR; see ferrotape verify --help"),
        (&["ls", "a", "b"], "ls: b is one operand too many; see ferrotape ls --help"),
        (&["pin", "a"], "pin: missing GENERATION; "),
        (&["pin", "a", "first"], "pin: GENERATION first: expected a number; "),
        (&["export", "a"], "export: missing --to OUT.safetensors or OUT.npz; "),
        (&["prune", "a", "--keep-last", "-1"], "prune: --keep-last -1: invalid digit"),
        (&["prune", "a", "--keep-last"], "prune: missing argument for option '--keep-last'; "),
        (&["replay", "a", "--rule", "gl(-5)"], "replay: --rule gl(-5): gl(-5): alpha must be"),
        (&["help", "ls", "prune"], "help: prune is one operand too many; see ferrotape --help"),
    ] {
        let (_, _, error) = ferrotape(arguments);
        assert!(error.starts_with(&format!("ferrotape: {message}")), "{arguments:?}: {error}");
    }
    // So is a setting of the environment.
    for (name, value) in [("FERROTAPE_ISA", "mmx"), ("FERROTAPE_WINOGRAD", "off")] {
        let Output { status, stderr, .. } = output(program().args(["ls", "a"]).env(name, value));
        let error = String::from_utf8(stderr).unwrap();
        assert!(
            status.code() == Some(2) && error.starts_with(&format!("ferrotape: {name}")),
            "{error}"
        );
    }
}

#[test]
fn a_name_cannot_control_the_terminal() {
    let dir = scratch("cli", "escape");
    let config = vec![("note".to_owned(), "\x1b[2J\x07boo".to_owned())];
    let state = TrainingState { config, ..TrainingState::default() };
    Checkpoints::open(&dir).unwrap().save(&state, None).unwrap();
    let out = ok(&["inspect", dir.to_str().unwrap()]);
    assert!(out.contains("note = \\u{1b}[2J\\u{7}boo"), "{out}");
    let (_, _, error) = ferrotape(&["verify", "\x1b[2J", "--json", "-\x1b"]);
    assert!(!error.contains('\x1b'), "{error:?}");
}

#[test]
fn a_closed_pipe_is_no_panic_and_a_full_disk_no_success() {
    let dir = run_dir("pipe", FALLING);
    let run = |stdout: Stdio, stderr: Stdio| {
        let arguments = ["inspect", dir.to_str().unwrap(), "--json"];
        let child = start(program().args(arguments).stdout(stdout).stderr(stderr));
        child.wait_with_output().unwrap()
    };
    let mut command = program();
    command.args(["inspect", dir.to_str().unwrap(), "--json"]);
    let mut child = start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    if Path::new("/dev/full").exists() {
        let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into();
        let output = run(full(), Stdio::piped());
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write the output"));
        assert_eq!(run(full(), full()).status.code(), Some(1), "nobody left to tell");
    }
}

fn any_argument() -> impl Strategy<Value = OsString> {
    let known = [
        "run",
        "run/ckpt-00000001.ftape",
        "bad",
        "bad/ckpt-00000000.ftape",
        "w.npz",
        "w.safetensors",
        "log.jsonl",
        "new",
        "",
        "-",
        "--",
        "--json",
        "--help",
        "-h",
        "run.toml",
        "--check",
        "--resume",
        "--epochs=1",
        "--threads=1",
        "t.csv",
        "--split=valid",
        "--last",
        "-V",
        "--quick",
        "--best",
        "--all",
        "--dry-run",
        "--history",
        "--history=2",
        "--rule",
        "--rule=gl(5)",
        "patience(2)",
        "--to",
        "--to=out.npz",
        "out.safetensors",
        "--run-dir",
        "--run-dir=new",
        "--like",
        "--like=run",
        "--arch",
        "--arch=[]",
        "[{\"layer\":\"relu\"}]",
        "--rename=*=*",
        "--allow-missing=*",
        "--allow-unexpected=*",
        "--keep-last",
        "--keep-best=0",
        "--keep-every=0",
        "--max-bytes=1",
        "18446744073709551615",
        "-1",
        "0",
        "NaN",
    ];
    let known = prop::sample::select(known.to_vec()).prop_map(OsString::from);
    // No slash and no dot at the beginning: nothing outside of the directory is written to.
    let text = "[^/.\0][^/\0]{0,12}".prop_map(OsString::from);
    prop_oneof![6 => known, 1 => text, 1 => not_unicode()]
}

#[cfg(unix)]
fn not_unicode() -> impl Strategy<Value = OsString> {
    use std::os::unix::ffi::OsStringExt;
    prop::collection::vec(0x80_u8.., 1..8).prop_map(OsString::from_vec)
}

#[cfg(not(unix))]
fn not_unicode() -> impl Strategy<Value = OsString> {
    Just(OsString::from("é"))
}

/// Files that the arguments may name: made durable once, copied for every case.
static TEMPLATE: LazyLock<BTreeMap<PathBuf, (SystemTime, Vec<u8>)>> = LazyLock::new(|| {
    let dir = scratch("cli", "template");
    let mut run = Checkpoints::open(dir.join("run")).unwrap();
    let mut bad = Checkpoints::open(dir.join("bad")).unwrap();
    for step in 0..3 {
        run.save(&state(step), loss(1.0)).unwrap();
    }
    bad.save(&state(0), None).unwrap();
    flip_a_bit(dir.join("bad/ckpt-00000000.ftape").to_str().unwrap());
    fs::write(dir.join("log.jsonl"), r#"{"epoch": 1, "valid_loss": 1}"#).unwrap();
    fs::write(dir.join("t.csv"), "a,label\n1,x\n2,y\n3,x\n4,y\n5,x\n6,y\n7,x\n8,y\n").unwrap();
    let file = "[data]\npath = \"t.csv\"\nvalid = 0.25\ntest = 0.25\n[model]\nlayers = [{ linear = 2 }]\n\
                [optimizer]\nlr = 0.1\n[train]\nepochs = 2\n[run]\ndir = \"new\"\n";
    fs::write(dir.join("run.toml"), file).unwrap();
    for name in ["w.npz", "w.safetensors"] {
        interop::write(dir.join(name), &state(1).params).unwrap();
    }
    let dirs = [dir.clone(), dir.join("run"), dir.join("bad")];
    let files = dirs.iter().flat_map(|dir| snapshot(dir)).filter(|(path, _)| path.is_file());
    files.map(|(path, file)| (path.strip_prefix(&dir).unwrap().to_owned(), file)).collect()
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    /// Whatever the arguments: an exit code of the three, and never a panic.
    #[test]
    fn no_argument_makes_it_panic(
        command in prop::sample::select([&COMMANDS[..], &["help", "--json", ""]].concat()),
        arguments in prop::collection::vec(any_argument(), 0..7),
    ) {
        let dir = scratch("cli", "any-arguments");
        for (path, (_, bytes)) in TEMPLATE.iter() {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let output = output(program().arg(command).args(&arguments).current_dir(&dir));
        let error = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        prop_assert!(matches!(code, Some(0..=2)), "{command} {arguments:?}: {code:?} {error}");
        prop_assert!(!error.contains("panicked"), "{command} {arguments:?}: {error}");
    }
}

/// Opening a pipe waits for somebody to write to it: nobody will.
#[cfg(unix)]
#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let dir = run_dir("fifo", [0.1, 0.5, 0.4, 0.3, 0.2]);
    let pipe = |name: &str| {
        let path = dir.join(name);
        let _ = std::fs::remove_file(&path);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        path.to_str().unwrap().to_owned()
    };
    let (run, file, toml) = (dir.to_str().unwrap(), pipe("file"), pipe("run.toml"));
    let (weights, log) = (pipe("w.safetensors"), pipe("log.jsonl"));
    for arguments in [
        &["replay", &*file, "--rule", "patience(3)"][..],
        &["report", &log],
        &["train", &toml, "--check"],
        &["import", &weights, "--run-dir", run, "--arch", &file],
    ] {
        let (code, _, error) = ferrotape(arguments);
        assert!(code == 1 && error.contains("not a regular file"), "{arguments:?}: {code} {error}");
    }
    pipe("lock");
    let (code, _, error) = ferrotape(&["prune", run]);
    assert!(code == 1 && error.contains("lock"), "{code} {error}");
}
