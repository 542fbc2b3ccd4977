//! The last line before anything is shown: secrets are cut out of free text, and text has an end.
//!
//! Nothing upstream should ever put a secret into a message. An engine's error, however, may quote
//! the request that it refused, and that request carries the environment.

use std::collections::BTreeSet;

use crate::model::{
    Credential, Desired, Endpoint, EnvValue, FieldChange, Fleet, InstanceSpec, MarathonAuth, Plan,
    Reason, RegistrySpec, Secret, Step,
};

/// Most bytes of one message that are kept.
const MESSAGE: usize = 2000;
/// Shorter values are not looked for: cutting every `1` out of a sentence hides nothing.
const SHORTEST: usize = 4;
/// With so many, those of earlier revisions are forgotten.
const MOST: usize = 4096;

/// Knows the values that nobody may see.
#[derive(Clone, Default)]
pub struct Redactor {
    values: BTreeSet<Box<str>>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redactor({} values)", self.values.len())
    }
}

impl Redactor {
    /// Knows the secrets of every service of a revision.
    pub fn of(desired: &Desired) -> Self {
        let mut r = Self::default();
        r.learn(desired);
        r
    }

    /// Learns the secrets of a revision; those of earlier ones are still hidden.
    pub fn learn(&mut self, desired: &Desired) {
        if self.values.len() >= MOST {
            self.values.clear();
        }
        for service in desired.services.values() {
            self.learn_spec(&service.spec);
        }
        for fleet in desired.fleets.values() {
            self.learn_fleet(fleet);
        }
    }

    fn learn_fleet(&mut self, fleet: &Fleet) {
        let of_hosts = fleet.hosts.values().flat_map(|host| {
            let tls = match &host.endpoint {
                Endpoint::Tcp { tls, .. } => tls.as_ref(),
                Endpoint::Unix { .. } | Endpoint::Ssh { .. } | Endpoint::Marathon => None,
            };
            tls.map(|tls| &tls.key).into_iter().chain(&host.registry_auth)
        });
        let consul = match &fleet.registry {
            Some(RegistrySpec::Existing(consul)) => Some(consul),
            Some(RegistrySpec::Managed(_)) | None => None,
        };
        let identity = consul.and_then(|c| c.tls.as_ref()?.identity.as_ref());
        let of_consul = consul.and_then(|c| c.token.as_ref()).into_iter();
        let auth = fleet.marathon.as_ref().and_then(|cluster| cluster.auth.as_ref());
        let of_marathon = auth.map(|auth| match auth {
            MarathonAuth::Basic { username: _, password } => password,
            MarathonAuth::Token { token } => token,
        });
        let all = of_hosts.chain(of_consul).chain(identity.map(|(_, key)| key)).chain(of_marathon);
        let values: Vec<&Secret> = all.filter_map(Credential::secret).collect();
        for value in values {
            self.learn_value(value);
        }
    }

    /// Learns the secrets that a plan's steps carry: a rollback has those of an older document.
    pub fn learn_plan(&mut self, plan: &Plan) {
        for planned in &plan.steps {
            self.learn_step(&planned.step);
        }
    }

    /// Learns the secrets that a step carries.
    pub fn learn_step(&mut self, step: &Step) {
        if let Step::Start(start) = step {
            self.learn_spec(&start.spec);
        }
    }

    fn learn_spec(&mut self, spec: &InstanceSpec) {
        for var in &spec.env {
            if let EnvValue::Secret { value, .. } = &var.value {
                self.learn_value(value);
            }
        }
    }

    fn learn_value(&mut self, value: &Secret) {
        let whole = value.reveal();
        self.add(whole);
        // A key of many lines may be quoted in part, and JSON quotes it escaped.
        if whole.contains('\n') {
            // The first and the last line of a key say only that it is one.
            let lines = whole.lines().filter(|l| l.len() >= 12 && !l.starts_with("-----"));
            lines.for_each(|l| self.add(l));
        }
        if let Ok(json) = serde_json::to_string(whole) {
            self.add(json.trim_matches('"'));
        }
    }

    fn add(&mut self, value: &str) {
        let value = value.trim();
        if value.len() >= SHORTEST {
            self.values.insert(value.into());
        }
    }

    /// The text without any value that is known, and not longer than a message may be.
    pub fn hide(&self, text: &str) -> String {
        let mut out = text.to_owned();
        let mut found: Vec<&str> =
            self.values.iter().map(|v| &**v).filter(|v| text.contains(v)).collect();
        // The longest first: one secret may be the beginning of another.
        found.sort_by_key(|v| std::cmp::Reverse(v.len()));
        for value in found {
            out = out.replace(value, "•••");
        }
        if out.len() > MESSAGE {
            let mut end = MESSAGE;
            while !out.is_char_boundary(end) {
                end -= 1;
            }
            out.truncate(end);
            out.push('…');
        }
        out
    }

    /// A reason as text, in which an environment variable changes but does not show its values.
    pub fn reason(&self, reason: &Reason) -> String {
        let Reason::Update { changes, revision } = reason else {
            return self.hide(&reason.to_string());
        };
        if !changes.iter().any(of_environment) {
            return self.hide(&reason.to_string());
        }
        let shown: Vec<String> = changes
            .iter()
            .map(|c| match (of_environment(c), &c.old, &c.new) {
                (false, _, _) => c.to_string(),
                (true, None, Some(_)) => format!("{} added", c.field),
                (true, Some(_), None) => format!("{} removed", c.field),
                (true, _, _) => format!("{} changed", c.field),
            })
            .collect();
        self.hide(&format!("{} (commit {revision})", shown.join(", ")))
    }
}

fn of_environment(change: &FieldChange) -> bool {
    change.field == "env" || change.field.starts_with("env.") || change.field.starts_with("env[")
}

/// Text from outside as it may go to a terminal: no control characters, so no escape sequences.
pub fn clean(text: &str) -> String {
    // Bidirectional overrides can make a line read as something that it is not.
    let hostile =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if hostile(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EnvVar, Secret};

    fn knows(value: &str) -> Redactor {
        let secret =
            EnvValue::Secret { name: "n".into(), key: "k".into(), value: Secret::new(value) };
        let mut r = Redactor::default();
        r.learn_spec(&InstanceSpec {
            env: vec![EnvVar { name: "X".into(), value: secret }],
            ..InstanceSpec::default()
        });
        r
    }

    #[test]
    fn whole_in_part_and_escaped() {
        let key = "-----BEGIN KEY-----\nMIIabcdefghijkl\n-----END KEY-----\n";
        for quoted in [key.to_owned(), format!("{key:?}"), "line MIIabcdefghijkl is bad".into()] {
            assert!(!knows(key).hide(&quoted).contains("MIIabc"), "{quoted}");
        }
        assert_eq!(knows("se\"cret").hide(r#"{"X":"se\"cret"}"#), r#"{"X":"•••"}"#);
        assert_eq!(knows("1").hide("exit code 1"), "exit code 1");
        assert_eq!(format!("{:?}", knows("hunter2")), "Redactor(1 values)");
    }

    #[test]
    fn a_message_has_an_end_and_is_cut_between_characters() {
        let cut = Redactor::default().hide(&"é".repeat(MESSAGE));
        assert!(cut.len() < MESSAGE + 8 && cut.ends_with("é…"));
    }

    #[test]
    fn escape_sequences_and_overrides_are_cleaned() {
        assert_eq!(clean("a\x1b[2Jb\r\nc\u{202e}d\u{9b}e"), "a [2Jb  c d e");
    }
}
