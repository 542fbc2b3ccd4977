//! Which API server is started, and with what arguments.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::agent::free_port;

/// Where the programs come from.
pub(super) enum Flavour {
    /// Built by the project.
    Own(PathBuf),
    /// `KUBEBUILDER_ASSETS`: `kube-apiserver`, `etcd` and `kubectl` of a release, as other projects' tests use them.
    Assets(PathBuf),
}

/// The ports of one API server, on loopback.
#[derive(Clone, Copy)]
pub(super) struct Ports {
    pub(super) server: u16,
    client: u16,
    peer: u16,
}

impl Ports {
    pub(super) fn free() -> Self {
        Self { server: free_port(), client: free_port(), peer: free_port() }
    }

    fn client(self) -> String {
        format!("http://127.0.0.1:{}", self.client)
    }
}

impl Flavour {
    pub(super) fn look() -> Self {
        let programs = super::programs();
        if programs.join("kube-apiserver").is_file() {
            Self::Assets(programs)
        } else {
            Self::Own(programs)
        }
    }

    pub(super) fn etcd(&self, dir: &Path, ports: Ports) -> Command {
        let (Self::Own(programs) | Self::Assets(programs)) = self;
        let peer = format!("http://127.0.0.1:{}", ports.peer);
        let mut etcd = Command::new(programs.join("etcd"));
        etcd.arg("--data-dir").arg(dir.join("data"));
        etcd.args(["--log-level", "warn"]);
        // What a crash of the machine loses was a test's.
        etcd.arg("--unsafe-no-fsync");
        for option in ["--listen-client-urls", "--advertise-client-urls"] {
            etcd.args([option, &ports.client()]);
        }
        for option in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
            etcd.args([option, &peer]);
        }
        etcd.args(["--initial-cluster", &format!("default={peer}")]);
        etcd
    }

    pub(super) fn server(&self, dir: &Path, ports: Ports) -> Command {
        match self {
            Self::Own(programs) => {
                let mut server = Command::new(programs.join("apiserver"));
                server.args(["-etcd", &ports.client()]);
                server.args(["-listen", &format!("127.0.0.1:{}", ports.server)]);
                server.arg("-dir").arg(dir).arg("-tokens").arg(dir.join("tokens.csv"));
                server
            }
            Self::Assets(programs) => {
                let key = dir.join("service-accounts.key");
                if !key.is_file() {
                    let mut made = Command::new("openssl");
                    made.args(["genrsa", "-out"]).arg(&key).arg("2048");
                    assert!(made.output().unwrap().status.success(), "openssl makes no key");
                }
                let mut server = Command::new(programs.join("kube-apiserver"));
                let option = |name: &str, path: &Path| format!("--{name}={}", path.display());
                server.arg(format!("--etcd-servers={}", ports.client()));
                server.args(["--bind-address=127.0.0.1", "--authorization-mode=RBAC"]);
                server.arg(format!("--secure-port={}", ports.server));
                server.arg(option("cert-dir", dir));
                server.arg(option("token-auth-file", &dir.join("tokens.csv")));
                server.arg(option("service-account-key-file", &key));
                server.arg(option("service-account-signing-key-file", &key));
                server.arg("--service-account-issuer=https://evenkeel.test");
                server.arg("--service-cluster-ip-range=10.0.0.0/24");
                server
            }
        }
    }

    /// Writes the kubeconfig where the server does not do so itself.
    pub(super) fn kubeconfig(&self, dir: &Path, ports: Ports) {
        let Self::Assets(_) = self else { return };
        let certificate = dir.join("apiserver.crt");
        if !certificate.is_file() || dir.join("kubeconfig").is_file() {
            return;
        }
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n\
             clusters: [{{name: test, cluster: {{server: 'https://127.0.0.1:{}', \
             certificate-authority: '{}'}}}}]\n\
             users: [{{name: test, user: {{token: admin-token}}}}]\n",
            ports.server,
            certificate.display()
        );
        fs::write(dir.join("kubeconfig"), text).unwrap();
    }
}
