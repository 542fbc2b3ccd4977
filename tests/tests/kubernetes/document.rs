//! The walk-through of `docs/walkthroughs/kubernetes.md`, as it is written: its files, its commands, in its order.

use std::fs;
use std::path::Path;
use std::process::Command;

use evenkeel_tests::agent::TOY_2;
use evenkeel_tests::kube::rig::Rig;

/// Where the part begins that needs neither an image nor hosts of the reader's.
const BEGIN: &str = "## Apply";

/// The fenced blocks after the beginning, with their language.
fn blocks(text: &str) -> Vec<(String, String)> {
    let from = text.find(BEGIN).expect(BEGIN);
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text[from..].lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => open = Some((language.to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((_, block)), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

#[tokio::test(flavor = "multi_thread")]
async fn the_walk_through_works_as_it_is_written() {
    let rig = Rig::new().await;
    let _agent = rig.agent();
    let place = tempfile::tempdir().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/walkthroughs/kubernetes.md");
    let name = rig.bed.name("greeter");
    // Containers are named after services, and other runs may be at it on the same engine.
    let text = fs::read_to_string(path).unwrap();
    let text = text.replace("greeter/greeter.yaml", "FILE").replace("greeter", &name);
    let programs = rig.server.programs();
    let shell = |line: &str| {
        let search = std::env::join_paths(
            [programs.clone()]
                .into_iter()
                .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).current_dir(place.path());
        shell.env("PATH", search.unwrap()).env("KUBECONFIG", rig.server.kubeconfig());
        shell.output().unwrap()
    };
    let mut rolled = false;
    for (language, block) in blocks(&text) {
        if language == "yaml" {
            assert!(block.starts_with("# FILE\n"), "a file without a name: {block}");
            fs::write(place.path().join("FILE"), &block).unwrap();
        }
        // The API server is the test's own, and ends with it.
        let typed = block.lines().filter(|line| line.starts_with("kubectl "));
        for line in typed.filter(|_| language == "sh") {
            let done = shell(line);
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            assert!(done.status.success(), "{line}: {said}");
            if line.starts_with("kubectl describe") {
                let service = rig.bed.service("greeter", 3);
                let all = rig.bed.of(&service).await;
                assert!(all.len() == 3 && all.iter().all(|c| c.image == TOY_2), "{all:?}");
                rolled = true;
            }
        }
        let mut lines = block.lines().filter(|_| language == "console");
        while let (Some(line), Some(answer)) = (lines.next(), lines.next()) {
            let done = shell(line.strip_prefix("$ ").unwrap());
            let said = String::from_utf8_lossy(&done.stderr);
            assert_eq!(said.trim_end(), answer, "{line}");
        }
    }
    assert!(rolled, "nothing was looked at");
    assert!(rig.bed.of(&rig.bed.service("greeter", 0)).await.is_empty(), "containers were left");
}
