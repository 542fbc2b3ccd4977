//! Against a real TLS server, where the machine has `openssl`: is the right one trusted?

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use super::*;

struct Tls {
    child: Child,
    dir: TempDir,
    port: u16,
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Shows a self-signed certificate for 127.0.0.1 and says something that is not git.
fn start() -> Option<Tls> {
    let dir = tempfile::tempdir().unwrap();
    let openssl = |args: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(args).current_dir(dir.path()).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let made = openssl(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
        "-days",
        "2",
        "-subj",
        "/CN=test",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ])
    .status()
    .ok()?;
    assert!(made.success());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let accept = format!("127.0.0.1:{port}");
    let child = openssl(&[
        "s_server", "-accept", &accept, "-key", "key.pem", "-cert", "cert.pem", "-www", "-quiet",
    ])
    .spawn()
    .unwrap();
    let tls = Tls { child, dir, port };
    for _ in 0..100 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Some(tls);
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("openssl s_server did not start");
}

#[tokio::test]
async fn a_private_certificate_is_trusted_when_it_is_given_and_only_for_its_name() {
    let Some(tls) = start() else {
        eprintln!("no openssl on this machine: nothing was tested");
        return;
    };
    let o = Origin::new();
    let read = |host: &str, ca: Option<&str>| {
        let mut git = o.git(|c| {
            c.url = format!("https://{host}:{}/origin.git", tls.port);
            c.ca_file = ca.map(|name| tls.dir.path().join(name));
        });
        async move { git.fetch(None).await.unwrap_err() }
    };
    // Trusted, and then it turns out not to be a git server.
    let e = read("127.0.0.1", Some("cert.pem")).await;
    assert!(!matches!(e, FetchError::Untrusted { .. }), "{e:?}");
    let e = read("127.0.0.1", None).await;
    assert!(matches!(e, FetchError::Untrusted { .. }), "{e:?}");
    assert!(e.hint().unwrap().contains("--git-ca-file"));
    let e = read("localhost", Some("cert.pem")).await;
    assert!(matches!(e, FetchError::Untrusted { .. }), "{e:?}");
    let other = include_bytes!("../testdata/other-ca.pem");
    std::fs::write(tls.dir.path().join("other.pem"), other).unwrap();
    let e = read("127.0.0.1", Some("other.pem")).await;
    assert!(matches!(e, FetchError::Untrusted { .. }), "{e:?}");
}
