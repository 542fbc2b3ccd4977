//! Against a real `sshd` on the loopback, where the machine has one.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use super::*;

struct Sshd {
    child: Child,
    port: u16,
    user: String,
    /// Holds the keys: `host`, `client`, `locked` (pass phrase `open sesame`) and `stranger`.
    dir: TempDir,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sshd {
    /// `None` where there is no `sshd`, or this user may not run one.
    fn start() -> Option<Self> {
        let program =
            ["/usr/sbin/sshd", "/usr/bin/sshd"].into_iter().find(|p| Path::new(p).exists())?;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        for (name, phrase) in
            [("host", ""), ("client", ""), ("locked", "open sesame"), ("stranger", "")]
        {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", phrase, "-f", &at(name)])
                .status()
                .unwrap();
            assert!(made.success());
        }
        let both = ["client.pub", "locked.pub"].map(|k| std::fs::read_to_string(at(k)).unwrap());
        std::fs::write(at("authorized"), both.concat()).unwrap();
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        let user = String::from_utf8(user).unwrap().trim().to_owned();
        if user == "root" {
            // Where sshd drops its privileges; a machine with no running sshd may lack it.
            std::fs::create_dir_all("/run/sshd").ok()?;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             StrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n",
            at("host"),
            at("authorized"),
        );
        std::fs::write(at("config"), config).unwrap();
        let child = Command::new(program)
            .args(["-D", "-e", "-f", &at("config")])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sshd = Self { child, port, user, dir };
        for _ in 0..100 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(sshd);
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("sshd did not start");
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A `known_hosts` that gives this server the public key `key`.
    fn known(&self, key: &str) -> HostKeys {
        let key = std::fs::read_to_string(self.at(key)).unwrap();
        let path = self.at("known_hosts");
        std::fs::write(&path, format!("[127.0.0.1]:{} {key}", self.port)).unwrap();
        HostKeys::Files(vec![path])
    }
}

#[tokio::test]
async fn a_repository_is_read_over_ssh_from_a_known_host_with_a_known_key_only() {
    let Some(sshd) = Sshd::start() else {
        eprintln!("no sshd on this machine: nothing was tested");
        return;
    };
    let o = Origin::new();
    o.commit(&[("a.yaml", "1")]);
    let url = format!("ssh://{}@127.0.0.1:{}{}", sshd.user, sshd.port, o.path().display());
    let key = |name: &str, phrase: Option<&str>| Auth::SshKey {
        path: sshd.at(name),
        passphrase: phrase.map(Secret::new),
    };
    let read = |auth: Auth, host_keys: HostKeys| {
        let mut git = o.git(|c| {
            c.url.clone_from(&url);
            c.auth = auth;
            c.host_keys = host_keys;
            c.state_dir = tempfile::tempdir_in(o.dir.path()).unwrap().keep();
        });
        async move { git.fetch(None).await.map(Option::unwrap) }
    };
    let tree = read(key("client", None), sshd.known("host.pub")).await.unwrap();
    assert_eq!(&*tree.files["a.yaml"], b"1");
    read(key("locked", Some("open sesame")), sshd.known("host.pub")).await.unwrap();
    read(key("client", None), HostKeys::AcceptAny).await.unwrap();

    let e = read(key("locked", Some("SEKRIT")), sshd.known("host.pub")).await.unwrap_err();
    assert!(!format!("{e:?} {}", e.chain()).contains("SEKRIT"), "{e:?}");
    let e = read(key("stranger", None), sshd.known("host.pub")).await.unwrap_err();
    assert!(matches!(e, FetchError::Denied { .. }), "{e:?}");
    assert!(e.to_string().contains("did not take the key"), "{e}");

    let e = read(key("client", None), sshd.known("stranger.pub")).await.unwrap_err();
    assert!(matches!(e, FetchError::Untrusted { .. }), "{e:?}");
    assert!(e.to_string().contains("known_hosts says another"), "{e}");
    std::fs::write(sshd.at("empty"), "").unwrap();
    let nobody = HostKeys::Files(vec![sshd.at("empty")]);
    let e = read(key("client", None), nobody).await.unwrap_err();
    assert!(e.to_string().contains("is not in known_hosts"), "{e}");
    assert!(e.hint().unwrap().contains(&format!("ssh-keyscan -p {} 127.0.0.1", sshd.port)));
    let e = read(key("client", None), HostKeys::Files(vec![sshd.at("gone")])).await.unwrap_err();
    assert!(matches!(e, FetchError::Io { .. }), "{e:?}");
}
