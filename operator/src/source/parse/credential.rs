//! Credentials of a fleet: each in a file or a secret.

use evenkeel_crds as api;

use super::form;
use super::lower::Lowering;
use super::node::{Flaw, Node};
use crate::model::Credential;

/// Those of a TLS client, as far as they are given.
pub(super) struct Pems {
    pub(super) ca: Option<Credential>,
    pub(super) cert: Option<Credential>,
    pub(super) key: Option<Credential>,
}

impl Lowering<'_> {
    /// One that a document gives as `{at}File` or `{at}Secret`. Both at once is told by `conflicts()`.
    pub(super) fn credential(
        &mut self,
        at: &str,
        file: Option<String>,
        secret: Option<api::SecretKeyRef>,
    ) -> Option<Credential> {
        if let Some(path) = file {
            self.judge(&format!("{at}File"), form::path(&path));
            return Some(Credential::File(path));
        }
        let api::SecretKeyRef { name, key } = secret?;
        match self.secrets.get(&name, &key) {
            Ok(value) => Some(Credential::Secret { name, key, value }),
            Err(why) => {
                self.flaw(&format!("{at}Secret"), format!("no secret {name}/{key}: {why}"));
                None
            }
        }
    }

    /// Those of `tls` at a path.
    pub(super) fn pems(&mut self, at: &str, tls: api::ClientTls) -> Pems {
        let api::ClientTls { ca_file, ca_secret, cert_file, cert_secret, key_file, key_secret } =
            tls;
        Pems {
            ca: self.credential(&format!("{at}.ca"), ca_file, ca_secret),
            cert: self.credential(&format!("{at}.cert"), cert_file, cert_secret),
            key: self.credential(&format!("{at}.key"), key_file, key_secret),
        }
    }
}

/// Where a fleet's document names a file of the agent's machine. Who may write objects of a cluster may not have it read,
/// let alone sent to an address of their choice.
pub(super) fn files(root: &Node) -> Option<Flaw> {
    fn find(node: &Node, path: &str) -> Option<Flaw> {
        for field in node.fields() {
            let at = format!("{path}.{}", field.key);
            if field.key.ends_with("File") {
                let secret = format!("{}Secret", field.key.trim_end_matches("File"));
                let message = format!(
                    "{at}: a file of the agent's own machine, which no custom resource can ask for"
                );
                let hint =
                    format!("put it into a Secret of this namespace and name that in {secret}");
                return Some(Flaw::new(field.pos, message).hint(hint));
            }
            if let Some(flaw) = find(&field.value, &at) {
                return Some(flaw);
            }
        }
        for (index, item) in node.items().iter().enumerate() {
            if let Some(flaw) = find(item, &format!("{path}[{index}]")) {
                return Some(flaw);
            }
        }
        None
    }
    find(root.get("spec")?, "spec")
}
