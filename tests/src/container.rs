//! What a balancer's driver counts on in a container, whatever way leads to it.

use std::sync::Arc;
use std::time::Duration;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use evenkeel::backend::docker::{DockerContainer, archive};
use evenkeel::edge::container::LONGEST_OUTPUT;
use evenkeel::edge::{Container, File, Output};
use evenkeel::model::InstanceId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::docker::{IMAGE, Rig, TEST, h1};

/// A container as the drivers have it.
pub fn reach(rig: &Rig, id: &str) -> Arc<dyn Container> {
    let engine = rig.backend.engine(&h1()).expect("the host answers");
    let reach = Arc::new(move || Some(engine.clone()));
    Arc::new(DockerContainer::new(reach, InstanceId(id.into())))
}

/// A file of text.
pub fn file(path: &str, text: &str) -> File {
    File { path: path.into(), content: text.into(), mode: 0o644 }
}

/// Starts a container that was given `/etc/evenkeel/boot` before, and counts what it is sent.
pub async fn inside(rig: &Rig, name: &str) -> String {
    let script = "trap 'echo usr2 >>/tmp/got' USR2; trap 'exit 0' TERM; \
                  while :; do sleep 0.05; done";
    let body = ContainerCreateBody {
        image: Some(IMAGE.into()),
        cmd: Some(["/bin/sh", "-c", script].map(String::from).to_vec()),
        labels: Some([(TEST.to_owned(), rig.owner.to_string())].into()),
        ..ContainerCreateBody::default()
    };
    let name = format!("{}-{name}", rig.owner);
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    let made = rig.docker.create_container(Some(options), body).await.unwrap();
    let boot = archive(&[file("/etc/evenkeel/boot", "before the start")]).unwrap();
    let to = UploadToContainerOptionsBuilder::default().path("/").build();
    let body = bollard::body_full(boot);
    rig.docker.upload_to_container(&made.id, Some(to), body).await.unwrap();
    rig.docker.start_container(&made.id, None).await.unwrap();
    made.id
}

/// Uses every call on a container that [`inside`] made.
pub async fn contract(container: &dyn Container) {
    let text = async |command: &[&str]| container.exec(command).await.unwrap().text;
    assert_eq!(text(&["cat", "/etc/evenkeel/boot"]).await, "before the start");

    // Both streams and the code of a command; one that is not there has a code too.
    let said = container.exec(&["sh", "-c", "echo out; echo err >&2; exit 3"]).await.unwrap();
    assert_eq!(said.code, 3);
    assert!(said.text.contains("out\n") && said.text.contains("err\n"), "{said:?}");
    let Output { code, text: said } = container.exec(&["no-such-thing"]).await.unwrap();
    assert!(matches!(code, 126 | 127), "{code}: {said}");
    let long = container.exec(&["sh", "-c", "cat /bin/busybox /bin/busybox"]).await.unwrap();
    assert_eq!(long.code, 0);
    assert!(long.text.len() >= LONGEST_OUTPUT && long.text.len() <= 3 * LONGEST_OUTPUT);

    // Files arrive with their directories and permissions, and replace others.
    let key = File { mode: 0o600, ..file("/etc/evenkeel/deep/er/key", "k1") };
    container.put(&[key.clone(), file("/etc/evenkeel/plain", "p1")]).await.unwrap();
    assert_eq!(text(&["cat", "/etc/evenkeel/deep/er/key"]).await, "k1");
    assert!(text(&["ls", "-l", "/etc/evenkeel/deep/er/key"]).await.starts_with("-rw-------"));
    assert!(text(&["ls", "-ld", "/etc/evenkeel/deep"]).await.starts_with("drwxr-xr-x"));
    container.put(&[File { content: b"k2".to_vec(), ..key }]).await.unwrap();
    assert_eq!(text(&["cat", "/etc/evenkeel/deep/er/key"]).await, "k2");
    assert_eq!(text(&["ls", "/etc/evenkeel/deep/er"]).await, "key\n");
    assert!(container.put(&[file("/etc/../x", "")]).await.is_err());

    // A conversation: lines come back as they are sent, and standard error does not mix in.
    let echo = ["sh", "-c", "echo noise >&2; exec cat"];
    let mut cat = container.converse(&echo).await.unwrap();
    for line in ["one\n", "two\n", &format!("{}\n", "x".repeat(100_000))] {
        let mut back = vec![0; line.len()];
        let both = async {
            let (sent, got) = tokio::join!(
                cat.input.write_all(line.as_bytes()),
                cat.output.read_exact(&mut back)
            );
            sent.and(got).unwrap();
        };
        tokio::time::timeout(Duration::from_secs(10), both).await.expect("it comes back");
        assert_eq!(back, line.as_bytes());
    }
    let cats = async || {
        let all = container.processes().await.unwrap();
        all.into_iter().filter(|p| p.split('/').next_back() == Some("cat")).count()
    };
    assert_eq!(cats().await, 1);
    drop(cat);
    eventually("a conversation that is dropped ends its command", async || cats().await == 0).await;

    container.signal("USR2").await.unwrap();
    eventually("the signal comes", async || text(&["cat", "/tmp/got"]).await.contains("usr2"))
        .await;
    let all = container.processes().await.unwrap();
    assert!(all.iter().any(|p| p.contains("trap")), "{all:?}");
}

/// Waits for a condition.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), wait).await.is_ok(), "never: {what}");
}
