//! `evenkeel import` of files, by the real program: what it writes and where, what it says, and how it ends.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests panic as tests do")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use evenkeel_tests::agent::binary;
use serde_json::{Value, json};

/// The exit code, and what was said on standard output and standard error.
fn run(dir: &Path, line: &str, stdin: &str) -> (i32, String, String) {
    let mut child = Command::new(binary())
        .args(line.split_whitespace())
        .current_dir(dir)
        .env("TAG", "7")
        .env_remove("HOME")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

fn app(id: &str) -> Value {
    json!({"id": id, "instances": 2, "container": {"docker": {"image": "web:1"}}, "env": {"A": "1"}})
}

#[test]
fn apps_come_from_a_file_or_from_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let apps = json!({"apps": [app("/shop/web"), app("/other/x"), {"id": "/shop/cron", "cmd": "sleep 1"}]});
    fs::write(dir.path().join("apps.json"), apps.to_string()).unwrap();
    let (code, out, said) =
        run(dir.path(), "import marathon apps.json --group /shop --fleet mesos", "");
    assert_eq!(code, 2, "something was left out: {said}");
    assert!(
        out.starts_with(
            "apiVersion: evenkeel.dev/v1alpha1\nkind: ScalingService\nmetadata: {name: web}\n"
        ),
        "{out}"
    );
    assert!(out.contains("  fleet: mesos\n") && !out.contains("kind: Fleet"), "{out}");
    assert!(said.contains("/shop/cron: left out: it has no image"), "{said}");
    assert!(said.ends_with("1 service was written, 1 left out\n"), "{said}");
    let (code, again, _) = run(dir.path(), "import marathon - --group /other", &apps.to_string());
    assert_eq!(code, 0);
    assert!(again.contains("metadata: {name: x}"), "{again}");
    // With the masters named, the fleet is written too, and all of it is good.
    let (code, out, _) = run(
        dir.path(),
        "import marathon apps.json --group /other --urls http://mm1:8080,http://mm2:8080 --to all.yaml",
        "",
    );
    assert_eq!((code, out.as_str()), (0, ""));
    let text = fs::read_to_string(dir.path().join("all.yaml")).unwrap();
    assert!(
        text.contains("kind: Fleet")
            && text.contains("http://mm2:8080")
            && text.contains("\n---\n"),
        "{text}"
    );
    let (code, out, said) = run(dir.path(), "check all.yaml", "");
    assert_eq!(code, 0, "{out}{said}");
}

#[test]
fn nothing_is_written_over_and_many_documents_are_many_files() {
    let dir = tempfile::tempdir().unwrap();
    let many: Vec<Value> = (0..201).map(|n| app(&format!("/a{n}"))).collect();
    let many = json!(many).to_string();
    let (code, out, said) = run(dir.path(), "import marathon -", &many);
    assert_eq!((code, out.as_str()), (1, ""), "{said}");
    assert!(said.contains("201 documents are more than evenkeel reads from one file"), "{said}");
    let (code, _, said) =
        run(dir.path(), "import marathon - --to all/ --urls http://mm1:8080", &many);
    assert_eq!(code, 0, "{said}");
    assert_eq!(fs::read_dir(dir.path().join("all")).unwrap().count(), 202);
    let (code, out, _) = run(dir.path(), "check all", "");
    assert_eq!(code, 0, "{out}");
    fs::remove_file(dir.path().join("all/a7.yaml")).unwrap();
    let (code, _, said) = run(dir.path(), "import marathon - --to all", &many);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("is there already") && said.contains("hint: nothing is written over"),
        "{said}"
    );
    assert!(!dir.path().join("all/a7.yaml").exists(), "a part of it was written");
    fs::write(dir.path().join("one.yaml"), "mine").unwrap();
    let (code, _, said) =
        run(dir.path(), "import marathon - --to one.yaml", &json!([app("/x")]).to_string());
    assert!(code == 1 && said.contains("one.yaml is there already"), "{said}");
    assert_eq!(fs::read_to_string(dir.path().join("one.yaml")).unwrap(), "mine");
}

#[test]
fn programs_get_all_of_it_as_one_document() {
    let dir = tempfile::tempdir().unwrap();
    let apps = json!([app("/web"), {"id": "/cron", "cmd": "x"}]).to_string();
    let (code, out, _) = run(dir.path(), "import marathon - -o json", &apps);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 2);
    assert_eq!(
        (&told["documents"][0]["name"], &told["leftOut"][0]["subject"]),
        (&json!("web"), &json!("/cron"))
    );
    assert!(
        told["notes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|n| n["field"] == "networks" && n["lost"] == true),
        "{told:#}"
    );
    let (_, yaml, _) = run(dir.path(), "import marathon - -o yaml", &apps);
    assert!(yaml.starts_with("documents:\n"), "{yaml}");
}

#[test]
fn what_is_no_dump_is_an_error_that_says_what_to_give() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("bytes"), [0xff, 0xfe]).unwrap();
    for (line, stdin, says) in [
        ("import marathon -", "<html>", "-: no JSON: line 1, column 1"),
        ("import marathon -", "{\"services\": {}}", "neither a group nor an app"),
        ("import marathon nowhere.json", "", "nowhere.json: No such file"),
        ("import marathon - --urls mm1:8080", "[]", "mm1:8080 is no URL"),
        ("import marathon http://ann:word@127.0.0.1:1", "", "may not hold credentials"),
        ("import compose nowhere.yml", "", "nowhere.yml: No such file"),
        ("import compose bytes", "", "bytes: it is not UTF-8"),
        ("import compose -", "services: [", "not YAML"),
        ("import compose -", "a: 1", "there are no services in it"),
        ("import marathon - --to no/such/dir.yaml", "[]", "No such file"),
    ] {
        let (code, out, said) = run(dir.path(), line, stdin);
        assert_eq!((code, out.as_str()), (1, ""), "{line}: {said}");
        assert!(said.starts_with("error: ") && said.contains(says), "{line}: {said}");
        assert!(!said.contains("word@"), "{said}");
    }
}

#[test]
fn a_compose_file_is_read_with_its_variables_and_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let shop = dir.path().join("My Shop");
    fs::create_dir(&shop).unwrap();
    let text = "services:\n  web:\n    image: web:${TAG}\n    environment: {HOST: '${CACHE}', WHO: $WHO}\n    env_file: web.env\n    \
                volumes: ['./conf:/conf', 'data:/data']\nvolumes: {data: {}}\n";
    fs::write(shop.join("docker-compose.yml"), text).unwrap();
    fs::write(shop.join(".env"), "CACHE=one\nTAG=3\n").unwrap();
    fs::write(shop.join("web.env"), "LEVEL=info\n").unwrap();
    fs::write(dir.path().join("two.env"), "CACHE=two\nWHO=me-$CACHE\n").unwrap();
    let (code, out, said) = run(&shop, "import compose docker-compose.yml", "");
    assert_eq!(code, 0, "{said}");
    let root = shop.canonicalize().unwrap();
    let conf = format!("hostPath: \"{}/conf\"", root.display());
    // The shell's own TAG counts before that of the file.
    for part in [
        "image: web:7\n",
        "{name: HOST, value: one}",
        "{name: LEVEL, value: info}",
        &conf,
        "volume: myshop_data",
    ] {
        assert!(out.contains(part), "{part}:\n{out}");
    }
    for told in [
        "${WHO} is not set",
        "taken from .env beside the file",
        "1 service was written, 0 left out",
    ] {
        assert!(said.contains(told), "{told}:\n{said}");
    }
    let (code, out, said) = run(
        &shop,
        "import compose docker-compose.yml --env-file ../two.env --project shop --fleet edge",
        "",
    );
    assert_eq!(code, 0, "{said}");
    for part in [
        "{name: HOST, value: two}",
        "{name: WHO, value: me-two}",
        "volume: shop_data",
        "fleet: edge",
    ] {
        assert!(out.contains(part), "{part}:\n{out}");
    }
    let (code, out, _) =
        run(&shop, "import compose -", "services: {web: {image: a, build: .}, worker: {build: .}}");
    assert_eq!(code, 2);
    assert!(out.contains("networks: [myshop_default]"), "{out}");
}
