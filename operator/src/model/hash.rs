//! The fingerprint of what an instance is, and of nothing else.
//!
//! The form is part of the contract with running containers: a change here would restart every
//! container of every user, so the version is part of the input and a test pins known values.

use std::fmt;

use sha2::{Digest, Sha256};

use super::desired::{
    CommandCheck, EnvValue, EnvVar, File, InstanceSpec, Mount, MountSource, Port, Protocol,
    Resources,
};
use super::name::OwnerId;

/// The first 8 bytes of a SHA-256 over the canonical form, shown as 16 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpecHash(pub u64);

impl fmt::Display for SpecHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl SpecHash {
    /// Reads what `Display` wrote; `None` for anything else.
    pub fn parse(s: &str) -> Option<Self> {
        if s.len() != 16 || !s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return None;
        }
        u64::from_str_radix(s, 16).ok().map(Self)
    }

    /// The fingerprint of a spec. `owner` keys the digests of secrets, so that equal secrets of two
    /// installations do not look equal; it never changes for an installation.
    pub fn of(owner: &OwnerId, spec: &InstanceSpec) -> Self {
        // Taken apart without `..`: a new field does not compile until it is answered for here.
        let InstanceSpec {
            image,
            command,
            args,
            placed_args,
            env,
            ports,
            resources,
            mounts,
            networks,
            healthcheck,
            files,
            capabilities,
        } = spec;
        let mut h = Writer(Sha256::new());
        h.text("evenkeel-spec-v1");
        h.text(image);
        h.maybe_list(command.as_deref());
        h.maybe_list(args.as_deref());
        h.count(env.len());
        for EnvVar { name, value } in env {
            h.text(name);
            match value {
                EnvValue::Plain(v) => {
                    h.text("plain");
                    h.text(v);
                }
                // The reference is left out: renaming a secret does not change the instance.
                EnvValue::Secret { name: _, key: _, value } => {
                    h.text("secret");
                    h.text(&keyed_digest(owner, value.reveal().as_bytes()));
                }
            }
        }
        h.count(ports.len());
        for Port { name, container, protocol, publish } in ports {
            h.text(name);
            h.number(u64::from(*container));
            h.text(match protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            });
            h.number(publish.map_or(0, u64::from));
        }
        let Resources { cpu_millis, memory_bytes } = resources;
        h.number(*cpu_millis);
        h.number(*memory_bytes);
        h.count(mounts.len());
        for Mount { source, path, read_only } in mounts {
            match source {
                MountSource::Host(p) => {
                    h.text("host");
                    h.text(p);
                }
                MountSource::SlotVolume(v) => {
                    h.text("slot-volume");
                    h.text(v);
                }
                MountSource::Volume(v) => {
                    h.text("volume");
                    h.text(v);
                }
            }
            h.text(path);
            h.number(u64::from(*read_only));
        }
        h.maybe_list(Some(networks));
        match healthcheck {
            None => h.number(0),
            Some(CommandCheck { command, interval, timeout, failure_threshold, start_period }) => {
                h.number(1);
                h.maybe_list(Some(command));
                for d in [interval, timeout, start_period] {
                    h.number(u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
                }
                h.number(u64::from(*failure_threshold));
            }
        }
        // Where there are none nothing is added: specs from before there were any keep their hash.
        if !files.is_empty() {
            h.text("files");
            h.count(files.len());
            for File { path, content, mode } in files {
                h.text(path);
                h.number(u64::from(*mode));
                h.text(&keyed_digest(owner, content));
            }
        }
        if !capabilities.is_empty() {
            h.text("capabilities");
            h.maybe_list(Some(capabilities));
        }
        if !placed_args.is_empty() {
            h.text("placed");
            h.count(placed_args.len());
            for arg in placed_args {
                h.text(&arg.form());
            }
        }
        let digest = h.0.finalize();
        Self(u64::from_be_bytes(std::array::from_fn(|i| digest[i])))
    }
}

fn keyed_digest(owner: &OwnerId, value: &[u8]) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(owner.as_str().as_bytes()) else {
        return String::new(); // HMAC takes keys of any length; there is no such case
    };
    mac.update(value);
    let out = mac.finalize().into_bytes();
    out.iter().fold(String::with_capacity(64), |mut s, b| {
        use fmt::Write;
        let _ = write!(s, "{b:02x}");
        s
    })
}

/// Writes length-prefixed fields, so that no two specs share a canonical form.
struct Writer(Sha256);

impl Writer {
    fn number(&mut self, n: u64) {
        self.0.update(n.to_be_bytes());
    }

    fn count(&mut self, n: usize) {
        self.number(n as u64);
    }

    fn text(&mut self, s: &str) {
        self.count(s.len());
        self.0.update(s.as_bytes());
    }

    fn maybe_list(&mut self, list: Option<&[String]>) {
        match list {
            None => self.number(u64::MAX),
            Some(items) => {
                self.count(items.len());
                for s in items {
                    self.text(s);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::desired::Secret;
    use super::*;

    fn owner(s: &str) -> OwnerId {
        OwnerId::new(s).unwrap()
    }

    #[test]
    fn the_form_is_pinned_because_a_change_restarts_every_container() {
        let spec = InstanceSpec { image: "toy:1".into(), ..InstanceSpec::default() };
        assert_eq!(SpecHash::of(&owner("a"), &spec).to_string(), PINNED);
    }
    const PINNED: &str = "19102ccd60b4c6a5";

    #[test]
    fn a_changed_secret_changes_the_hash_and_its_name_does_not() {
        let with = |name: &str, v: &str| InstanceSpec {
            image: "toy:1".into(),
            env: vec![EnvVar {
                name: "TOKEN".into(),
                value: EnvValue::Secret {
                    name: name.into(),
                    key: "k".into(),
                    value: Secret::new(v),
                },
            }],
            ..InstanceSpec::default()
        };
        let h = |name, v| SpecHash::of(&owner("a"), &with(name, v));
        assert_ne!(h("s", "one"), h("s", "two"));
        assert_eq!(h("s", "one"), h("t", "one"));
        assert_ne!(h("s", "one"), SpecHash::of(&owner("b"), &with("s", "one")));
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let of = |command: &[&str], args: &[&str]| {
            let list = |l: &[&str]| Some(l.iter().map(ToString::to_string).collect());
            SpecHash::of(
                &owner("a"),
                &InstanceSpec { command: list(command), args: list(args), ..Default::default() },
            )
        };
        assert_ne!(of(&["a", "b"], &[]), of(&["a"], &["b"]));
        assert_ne!(of(&["ab"], &[]), of(&["a", "b"], &[]));
    }

    #[test]
    fn only_its_own_form_is_read_back() {
        let h = SpecHash(0xabc);
        assert_eq!(SpecHash::parse(&h.to_string()), Some(h));
        for bad in ["", "abc", "0000000000000ABC", "+000000000000abc", "00000000000000abc"] {
            assert_eq!(SpecHash::parse(bad), None, "{bad:?}");
        }
    }
}
