//! Whose an app is: the labels that say so, written and read in one place.

use serde_json::{Map, Value};

use crate::backend::docker::{FLEET, HASH, OWNER, SERVICE};
use crate::model::{Definition, FleetName, OWN_LABELS, OwnerId, ServiceName, SpecHash, Whose};

/// In whose name we act: nothing that carries another pair is ever touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Me {
    pub(super) owner: OwnerId,
    pub(super) fleet: FleetName,
}

impl Me {
    /// Whose an app is. Labels of ours that cannot be read make it somebody else's, never ours.
    pub(super) fn whose(&self, app: &Definition) -> Whose {
        let labels = app.0.get("labels").and_then(Value::as_object);
        if !labels.is_some_and(|all| all.keys().any(|name| name.starts_with(OWN_LABELS))) {
            return Whose::Nobodys;
        }
        let ours = app.label(OWNER) == Some(self.owner.as_str())
            && app.label(FLEET) == Some(self.fleet.as_str());
        match app.label(SERVICE).map(ServiceName::new) {
            Some(Ok(service)) if ours => {
                Whose::Ours { service, hash: app.label(HASH).and_then(SpecHash::parse) }
            }
            _ => Whose::Others,
        }
    }

    /// The same app with the labels that make it ours, and with no others of evenkeel.
    pub(super) fn sign(
        &self,
        app: &Definition,
        service: &ServiceName,
        hash: SpecHash,
    ) -> Definition {
        let mut fields = app.0.clone();
        let mut labels = match fields.remove("labels") {
            Some(Value::Object(labels)) => labels,
            _ => Map::new(),
        };
        labels.retain(|name, _| !name.starts_with(OWN_LABELS));
        for (name, value) in [
            (OWNER, self.owner.to_string()),
            (FLEET, self.fleet.to_string()),
            (SERVICE, service.to_string()),
            (HASH, hash.to_string()),
        ] {
            labels.insert(name.to_owned(), value.into());
        }
        fields.insert("labels".to_owned(), labels.into());
        Definition(fields)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::app::normal::normalise;

    fn me() -> Me {
        Me { owner: OwnerId::new("o").unwrap(), fleet: FleetName::new("f").unwrap() }
    }

    #[test]
    fn what_is_signed_is_ours_and_nothing_else_is() {
        let web = ServiceName::new("web").unwrap();
        let app = normalise(&json!({"cmd": "x", "labels": {"a": "b", "evenkeel.dev/owner": "p"}}));
        assert_eq!(me().whose(&app), Whose::Others);
        let signed = me().sign(&app, &web, SpecHash(0xab));
        assert_eq!(signed.label("a"), Some("b"));
        let hash = Some(SpecHash(0xab));
        assert_eq!(me().whose(&signed), Whose::Ours { service: web.clone(), hash });
        assert_eq!(me().whose(&normalise(&json!({"labels": {"a": "b"}}))), Whose::Nobodys);
        for (name, value, whose) in [
            (OWNER, "p", Whose::Others),
            (FLEET, "g", Whose::Others),
            (SERVICE, "a/b", Whose::Others),
            (HASH, "zz", Whose::Ours { service: web.clone(), hash: None }),
        ] {
            let mut other = signed.clone();
            other.0["labels"][name] = value.into();
            assert_eq!(me().whose(&other), whose, "{name}={value}");
        }
    }
}
