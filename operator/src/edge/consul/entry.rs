//! An instance as Consul knows it: its id, who it says it belongs to, and what is registered for it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::model::{
    FleetName, HostName, InstanceId, OwnerId, Probe, ProbeKind, Registration, ServiceName, Slot,
    Target,
};

/// Meta: the installation.
pub const OWNER: &str = "evenkeel-owner";
/// Meta: the fleet.
pub const FLEET: &str = "evenkeel-fleet";
/// Meta: the host.
pub const HOST: &str = "evenkeel-host";
/// Meta: the slot.
pub const SLOT: &str = "evenkeel-slot";
/// Meta: what the instance is.
pub const HASH: &str = "evenkeel-hash";
/// Meta: the whole id of the instance.
pub const INSTANCE: &str = "evenkeel-instance";
/// Meta: a digest of the whole entry, because an agent does not tell how it checks.
pub const ENTRY: &str = "evenkeel-entry";

/// What the notes of an entry's check begin with; the whole id of the instance follows. The catalogue tells checks of
/// all services in one call, and nothing else about them.
const NOTES: &str = "evenkeel instance ";
/// How the check of an instance without one of its own is asked: a connection.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
/// An entry whose check fails for so long goes by itself: what nobody sweeps, because nobody runs evenkeel any more,
/// does not stay for ever. An instance that is only cut off comes back sooner, or is registered anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);
/// How much of an answer a check keeps. A body that is another each time would wake everybody who watches the service.
const KEPT_OUTPUT: u32 = 1;

/// Whose entries these are. Nothing else is ever touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ours {
    pub(super) owner: OwnerId,
    pub(super) fleet: FleetName,
}

/// What the id of an entry tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) service: ServiceName,
    pub(super) host: HostName,
    pub(super) slot: Slot,
    /// Tells two instances of one slot apart.
    pub(super) short: String,
}

impl Ours {
    /// What the id of every entry of ours begins with. Names hold neither slashes nor what a pattern could take for
    /// more than a letter.
    pub(super) fn prefix(&self) -> String {
        format!("{}/{}/", self.owner, self.fleet)
    }

    /// `<owner>/<fleet>/<service>/<host>/<slot>/<instance, shortened>`.
    pub(super) fn id(&self, registration: &Registration) -> String {
        let Registration { service, host, slot, instance, .. } = registration;
        format!("{}{service}/{host}/{slot}/{}", self.prefix(), short(instance))
    }

    /// What an id of ours tells; `None` for any other.
    pub(super) fn read(&self, id: &str) -> Option<Identity> {
        let mut parts = id.strip_prefix(&self.prefix())?.split('/');
        let mut part = || parts.next();
        let identity = Identity {
            service: ServiceName::new(part()?).ok()?,
            host: HostName::new(part()?).ok()?,
            slot: Slot(part()?.parse().ok()?),
            short: part()?.to_owned(),
        };
        let good = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        let whole = part().is_none() && identity.short.len() == SHORT;
        (whole && identity.short.bytes().all(good)).then_some(identity)
    }

    /// Whether an entry says that it is ours, in its id and in its meta.
    pub(super) fn own(&self, id: &str, meta: &BTreeMap<String, String>) -> bool {
        self.read(id).is_some()
            && meta.get(OWNER).is_some_and(|owner| owner == self.owner.as_str())
            && meta.get(FLEET).is_some_and(|fleet| fleet == self.fleet.as_str())
    }

    /// What should be registered.
    pub(super) fn entry(&self, registration: &Registration) -> Entry {
        let Registration {
            instance,
            service,
            host,
            slot,
            hash,
            address,
            tags,
            meta,
            check,
            target,
        } = registration;
        let id = self.id(registration);
        let mut meta = meta.clone();
        meta.extend([
            (OWNER.to_owned(), self.owner.to_string()),
            (FLEET.to_owned(), self.fleet.to_string()),
            (HOST.to_owned(), host.to_string()),
            (SLOT.to_owned(), slot.to_string()),
            (HASH.to_owned(), hash.to_string()),
            (INSTANCE.to_owned(), instance.0.to_string()),
        ]);
        meta.remove(ENTRY);
        let mut form = Form {
            check: Check::new(&id, instance, *address, check.as_ref()),
            id: id.clone(),
            name: service.to_string(),
            tags: tags.clone(),
            address: address.ip().to_string(),
            port: address.port(),
            meta,
            enable_tag_override: false,
        };
        let digest = digest(&form);
        form.meta.insert(ENTRY.to_owned(), digest);
        // Not part of the digest: it is how a check begins, and the one that there is goes on as it was.
        form.check.status = match target {
            Target::Ready => "passing",
            Target::Drain => "critical",
        };
        Entry {
            id,
            instance: instance.clone(),
            host: host.clone(),
            drain: matches!(target, Target::Drain),
            form,
        }
    }
}

/// Characters of the shortened instance id.
const SHORT: usize = 12;

/// The first twelve characters of a container id; of any other id, which may begin alike, as many of its digest.
fn short(instance: &InstanceId) -> String {
    let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    match instance.0.get(..SHORT) {
        Some(start) if instance.0.len() == 64 && instance.0.bytes().all(hex) => start.to_owned(),
        _ => hexadecimal(&Sha256::digest(instance.0.as_bytes())[..SHORT / 2]),
    }
}

fn digest(form: &Form) -> String {
    let bytes = serde_json::to_vec(form).unwrap_or_default();
    hexadecimal(&Sha256::digest(bytes)[..8])
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// One entry that should be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) instance: InstanceId,
    pub(super) host: HostName,
    /// Whether it should be in maintenance.
    pub(super) drain: bool,
    pub(super) form: Form,
}

/// The body of a registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Form {
    #[serde(rename = "ID")]
    pub(super) id: String,
    pub(super) name: String,
    pub(super) tags: Vec<String>,
    pub(super) address: String,
    pub(super) port: u16,
    pub(super) meta: BTreeMap<String, String>,
    pub(super) enable_tag_override: bool,
    pub(super) check: Check,
}

/// How the agent asks the instance. There is always a check, so that an instance that is cut off drops out by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Check {
    /// The same at every registration, so that a changed check takes the place of the one before.
    #[serde(rename = "CheckID")]
    pub(super) id: String,
    pub(super) name: &'static str,
    pub(super) notes: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) status: &'static str,
    #[serde(rename = "HTTP", skip_serializing_if = "Option::is_none")]
    pub(super) http: Option<String>,
    #[serde(rename = "TCP", skip_serializing_if = "Option::is_none")]
    pub(super) tcp: Option<String>,
    pub(super) interval: String,
    pub(super) timeout: String,
    pub(super) failures_before_critical: u32,
    pub(super) deregister_critical_service_after: String,
    pub(super) output_max_size: u32,
}

impl Check {
    fn new(
        id: &str,
        instance: &InstanceId,
        address: std::net::SocketAddr,
        probe: Option<&Probe>,
    ) -> Self {
        let (http, interval, timeout, failures) = match probe {
            None => (None, DEFAULT_INTERVAL, DEFAULT_TIMEOUT, 1),
            // The container port says nothing here: what is registered is where it is reached.
            Some(Probe {
                kind,
                port: _,
                interval,
                timeout,
                failure_threshold,
                start_period: _,
            }) => {
                let http = match kind {
                    ProbeKind::Http { path } => Some(format!("http://{address}{path}")),
                    ProbeKind::Tcp => None,
                };
                (http, *interval, *timeout, *failure_threshold)
            }
        };
        Self {
            id: check_id(id),
            name: "evenkeel",
            notes: format!("{NOTES}{}", instance.0),
            status: "",
            tcp: http.is_none().then(|| address.to_string()),
            http,
            interval: milliseconds(interval.max(Duration::from_secs(1))),
            timeout: milliseconds(timeout.max(Duration::from_millis(1))),
            failures_before_critical: failures.max(1),
            deregister_critical_service_after: milliseconds(FORGOTTEN_AFTER),
            output_max_size: KEPT_OUTPUT,
        }
    }
}

/// The id of the check that belongs to an entry.
pub(super) fn check_id(id: &str) -> String {
    format!("service:{id}")
}

/// The id of the check that an agent makes of maintenance.
pub(super) fn maintenance_id(id: &str) -> String {
    format!("_service_maintenance:{id}")
}

/// The instance that the notes of an entry's check name.
pub(super) fn noted(notes: &str) -> Option<InstanceId> {
    let id = notes.strip_prefix(NOTES).filter(|id| !id.is_empty())?;
    Some(InstanceId(Arc::from(id)))
}

fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::SpecHash;

    pub(in super::super) fn ours() -> Ours {
        Ours { owner: OwnerId::new("me").unwrap(), fleet: FleetName::new("shop").unwrap() }
    }

    /// A container id that begins with `n`.
    pub(in super::super) fn container(n: u16) -> String {
        format!("{n:04x}{:060x}", 0)
    }

    /// Instance `n` of a service on a host, in slot `n`, as it should be registered.
    pub(in super::super) fn registration(service: &str, host: &str, n: u16) -> Registration {
        Registration {
            instance: InstanceId(container(n).into()),
            service: ServiceName::new(service).unwrap(),
            host: HostName::new(host).unwrap(),
            slot: Slot(u32::from(n)),
            hash: SpecHash(7),
            address: format!("127.0.0.1:{}", 20000 + n).parse().unwrap(),
            tags: vec!["v1".into()],
            meta: BTreeMap::from([("team".into(), "sea".into())]),
            check: None,
            target: Target::Ready,
        }
    }

    #[test]
    fn an_id_tells_what_it_was_made_of() {
        let r = registration("web", "h1", 3);
        let id = ours().id(&r);
        assert_eq!(id, "me/shop/web/h1/3/000300000000");
        let read = ours().read(&id).unwrap();
        assert_eq!((read.service, read.host, read.slot), (r.service, r.host, r.slot));
        assert_eq!(read.short, "000300000000");
    }

    #[test]
    fn instances_of_one_slot_have_ids_of_their_own() {
        let mut a = registration("web", "h1", 1);
        let mut b = a.clone();
        // The tasks of a Marathon app begin alike.
        a.instance = InstanceId("shop_web.aaaaaaaa-1".into());
        b.instance = InstanceId("shop_web.aaaaaaaa-2".into());
        assert_ne!(ours().id(&a), ours().id(&b));
        assert!(ours().read(&ours().id(&a)).is_some());
    }

    #[test]
    fn other_ids_are_nobody_of_ours() {
        for id in [
            "",
            "web",
            "me/shop",
            "me/shop/web/h1/1",
            "me/shop/web/h1/1/00000000000",
            "me/shop/web/h1/1/000000000000/x",
            "me/shop/web/h1/one/000000000000",
            "me/shop/../h1/1/000000000000",
            "me/shop2/web/h1/1/000000000000",
            "you/shop/web/h1/1/000000000000",
            "me/shop/web/h1/1/00000000000?",
        ] {
            assert_eq!(ours().read(id), None, "{id}");
        }
    }

    #[test]
    fn only_what_says_so_twice_is_ours() {
        let entry = ours().entry(&registration("web", "h1", 1));
        let with = |key: &str, value: &str| {
            let mut meta = entry.form.meta.clone();
            meta.insert(key.into(), value.into());
            ours().own(&entry.id, &meta)
        };
        assert!(with("any", "thing"));
        assert!(!with(OWNER, "you"));
        assert!(!with(FLEET, "bank"));
        assert!(!ours().own("web", &entry.form.meta));
        assert!(!ours().own(&entry.id, &BTreeMap::new()));
    }

    #[test]
    fn a_document_cannot_say_who_owns_an_entry() {
        let mut r = registration("web", "h1", 1);
        r.meta.insert(OWNER.into(), "you".into());
        r.meta.insert(ENTRY.into(), "0".into());
        let entry = ours().entry(&r);
        assert_eq!(entry.form.meta[OWNER], "me");
        assert_ne!(entry.form.meta[ENTRY], "0");
    }

    #[test]
    fn the_digest_follows_the_check_and_not_the_traffic() {
        let of = |change: fn(&mut Registration)| {
            let mut r = registration("web", "h1", 1);
            change(&mut r);
            ours().entry(&r).form.meta[ENTRY].clone()
        };
        let plain = of(|_| ());
        assert_eq!(plain, of(|r| r.target = Target::Drain));
        let checked = of(|r| {
            r.check = Some(Probe {
                kind: ProbeKind::Tcp,
                port: 1,
                interval: Duration::from_secs(3),
                timeout: Duration::from_secs(1),
                failure_threshold: 1,
                start_period: Duration::ZERO,
            });
        });
        assert_ne!(plain, checked);
    }

    #[test]
    fn the_body_is_what_the_api_wants() {
        let mut r = registration("web", "h1", 1);
        r.check = Some(Probe {
            kind: ProbeKind::Http { path: "/up?x=1".into() },
            port: 8080,
            interval: Duration::from_millis(1500),
            timeout: Duration::from_secs(1),
            failure_threshold: 3,
            start_period: Duration::from_secs(9),
        });
        r.address = "[fd00::1]:8080".parse().unwrap();
        r.target = Target::Drain;
        let mut entry = ours().entry(&r);
        assert!(entry.drain);
        entry.form.meta.insert(ENTRY.into(), "(digest)".into());
        let body = serde_json::to_value(&entry.form).unwrap();
        let id = container(1);
        assert_eq!(
            body,
            serde_json::json!({
                "ID": "me/shop/web/h1/1/000100000000",
                "Name": "web",
                "Tags": ["v1"],
                "Address": "fd00::1",
                "Port": 8080,
                "EnableTagOverride": false,
                "Meta": {
                    "evenkeel-owner": "me", "evenkeel-fleet": "shop", "evenkeel-host": "h1",
                    "evenkeel-slot": "1", "evenkeel-hash": "0000000000000007",
                    "evenkeel-instance": id, "evenkeel-entry": "(digest)", "team": "sea",
                },
                "Check": {
                    "CheckID": "service:me/shop/web/h1/1/000100000000",
                    "Name": "evenkeel",
                    "Notes": format!("evenkeel instance {id}"),
                    "Status": "critical",
                    "HTTP": "http://[fd00::1]:8080/up?x=1",
                    "Interval": "1500ms",
                    "Timeout": "1000ms",
                    "FailuresBeforeCritical": 3,
                    "DeregisterCriticalServiceAfter": "86400000ms",
                    "OutputMaxSize": 1,
                },
            })
        );
    }

    #[test]
    fn without_a_check_a_connection_is_tried() {
        let form = ours().entry(&registration("web", "h1", 1)).form;
        assert_eq!(form.check.tcp.as_deref(), Some("127.0.0.1:20001"));
        assert_eq!((form.check.http, form.check.status), (None, "passing"));
        assert_eq!(noted(&form.check.notes), Some(InstanceId(container(1).into())));
        assert_eq!(noted("by hand"), None);
    }
}
