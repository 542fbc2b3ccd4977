//! A registry that nobody pulls from without a password, and images in it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::agent::{Bed, LONG, http, until};
use crate::docker::TEST;
use crate::hosts::{GATEWAY, Hosts};

/// What `docker-registry` keeps of the password: `even keel`, by bcrypt.
const KNOWN: &str = "keel:$2y$05$abcdefghijklmnopqrstuui5Xie1LNmjap9npS6tHBQzO5ugNBnrW\n";
/// `keel:even keel` in base64, as a client keeps it.
const AUTH: &str = "a2VlbDpldmVuIGtlZWw=";
/// Where it listens: hosts name it in documents.
const PORT: u16 = 5000;

/// It runs until it is dropped.
pub struct Private<'h> {
    hosts: &'h Hosts,
    name: String,
    config: PathBuf,
    images: Vec<String>,
}

impl<'h> Private<'h> {
    /// Starts it beside the hosts.
    pub async fn serve(bed: &Bed, hosts: &'h Hosts) -> Self {
        let config = bed.dir().join("registry");
        fs::create_dir_all(&config).unwrap();
        let passwords = config.join("htpasswd");
        fs::write(&passwords, KNOWN).unwrap();
        let entry = serde_json::json!({"auth": AUTH});
        // The local engine takes a registry without a certificate only from the loopback.
        let auths = serde_json::json!({
            format!("{GATEWAY}:{PORT}"): entry, format!("127.0.0.1:{PORT}"): entry,
        });
        let auths = serde_json::json!({"auths": auths}).to_string();
        fs::write(config.join("config.json"), auths).unwrap();
        let name = bed.name("registry");
        let it = Self { hosts, name, config, images: Vec::new() };
        let label = format!("{TEST}={}", bed.owner);
        let file = format!("{}:/htpasswd:ro", passwords.display());
        let listen = format!("REGISTRY_HTTP_ADDR=:{PORT}");
        let mut run = vec!["run", "--detach", "--name", &it.name, "--label", &label];
        run.extend(["--network", "host", "--volume", &file, "--env", &listen]);
        run.extend(["--env", "REGISTRY_AUTH=htpasswd"]);
        run.extend(["--env", "REGISTRY_AUTH_HTPASSWD_REALM=evenkeel"]);
        run.extend(["--env", "REGISTRY_AUTH_HTPASSWD_PATH=/htpasswd", "evenkeel/registry:1"]);
        good(&["docker"], &run);
        until("the registry wants a password", LONG, async || {
            let (code, _) = http(&format!("127.0.0.1:{PORT}"), "GET", "/v2/", &[], "").await?;
            (code == 401).then_some(())
        })
        .await;
        it
    }

    /// The directory with the `config.json` of somebody who knows the password.
    pub fn config(&self) -> &str {
        self.config.to_str().unwrap()
    }

    /// Puts an image of the local engine into it, under another name, and makes sure that no host has that yet.
    pub fn push(&mut self, from: &str, name: &str) {
        let local = format!("127.0.0.1:{PORT}/{name}");
        good(&["docker"], &["tag", from, &local]);
        self.images.push(name.to_owned());
        let pushed = docker(&["docker", "--config", self.config()], &["push", &local]);
        assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
        self.forget(name);
        // It is private: an engine gets nothing by itself.
        let (nobody, remote) = (tempfile::tempdir().unwrap(), format!("{GATEWAY}:{PORT}/{name}"));
        let nobody = ["docker", "--config", nobody.path().to_str().unwrap(), "-H"];
        let at = self.hosts.all[0].endpoint();
        let pulled = docker(&[&nobody[..], &[&at]].concat(), &["pull", &remote]);
        assert!(!pulled.status.success(), "it gives {remote} to anybody");
    }

    fn forget(&self, name: &str) {
        let remote = format!("{GATEWAY}:{PORT}/{name}");
        for host in &self.hosts.all {
            docker(&["docker", "-H", &host.endpoint()], &["rmi", "--force", &remote]);
        }
    }
}

impl Drop for Private<'_> {
    fn drop(&mut self) {
        docker(&["docker"], &["rm", "--force", "--volumes", &self.name]);
        for name in &self.images {
            docker(&["docker"], &["rmi", "--force", &format!("127.0.0.1:{PORT}/{name}")]);
            self.forget(name);
        }
    }
}

fn docker(program: &[&str], args: &[&str]) -> Output {
    Command::new(program[0]).args(&program[1..]).args(args).output().unwrap()
}

fn good(program: &[&str], args: &[&str]) {
    let out = docker(program, args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
}
