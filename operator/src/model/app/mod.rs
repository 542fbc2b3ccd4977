//! Marathon apps as values: what an app is asked to be, and what the server says of it.
//!
//! A [`Definition`] is an app's JSON in the one form that this program compares: the form of Marathon 1.5 and newer, without
//! anything the server fills in by itself. What a service renders to and what a server reports both go through
//! [`normal::normalise`], so that a difference is one that somebody made.

mod check;
pub mod compare;
mod json;
mod network;
pub mod normal;
pub mod render;

pub use network::MESOS_BRIDGE;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::credential::Credential;
use super::hash::SpecHash;
use super::name::{HostName, InstanceId, ServiceName};

/// The name of the one host that stands for a Marathon cluster: its view is the cluster's, and its silence Marathon's.
pub const CLUSTER: &str = "marathon";

/// The labels that make an app ours; part of no comparison.
pub const OWN_LABELS: &str = "evenkeel.dev/";

/// An app's absolute path, such as `/shop/web`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppId(Arc<str>);

impl AppId {
    /// Takes an absolute path as a server reports it: a slash, then segments of lower-case letters, digits, `-` and `.`.
    /// `None` for everything else.
    pub fn new(path: &str) -> Option<Self> {
        let segment = |s: &str| {
            let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            let inner = |c: char| edge(c) || c == '-' || c == '.';
            s.chars().all(inner) && s.starts_with(edge) && s.ends_with(edge)
        };
        let rest = path.strip_prefix('/')?;
        let short = path.len() <= 1024;
        (short && rest.split('/').all(segment)).then(|| Self(path.into()))
    }

    /// The app of a service that says no other: its name within the fleet's group.
    pub fn of(group: &str, service: &ServiceName) -> Self {
        Self(format!("{}/{service}", group.trim_end_matches('/')).into())
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What an app is, in the form that is compared; without its id and its number of instances.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Definition(pub Map<String, Value>);

impl fmt::Debug for Definition {
    /// Without any value: the environment may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<&String> = self.0.keys().collect();
        write!(f, "Definition{fields:?}")
    }
}

impl Definition {
    /// One of its labels.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.0.get("labels")?.get(name)?.as_str()
    }
}

/// How a Marathon cluster is spoken with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarathonSpec {
    /// Base URLs of its masters, tried in turn.
    pub urls: Vec<String>,
    /// How the agent says who it is.
    pub auth: Option<MarathonAuth>,
    /// The group that apps are kept in, such as `/shop`; `/` for none.
    pub group: String,
    /// Where each Mesos agent finds an archive with `.docker/config.json`, such as `file:///etc/docker.tar.gz`.
    pub registry_config: Option<String>,
    /// Whether the cluster registers its own tasks with Consul.
    pub registrator: bool,
}

/// How the agent says who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MarathonAuth {
    /// HTTP basic authentication.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: Credential,
    },
    /// `Authorization: token=…`, as DC/OS has it.
    Token {
        /// The token.
        token: Credential,
    },
}

/// What a service's document says of its app.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AppClaim {
    /// The app to take over, whoever made it; the one of the service's own name within the fleet's group where not given.
    pub id: Option<AppId>,
    /// Fields of Marathon's own, which take the place of what is rendered.
    pub fields: Map<String, Value>,
    /// Whether somebody else decides how many instances there are.
    pub scaled_elsewhere: bool,
}

/// One app as the server reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppView {
    /// Whose it is.
    pub whose: Whose,
    /// What it is asked to be.
    pub definition: Arc<Definition>,
    /// How many instances are asked for.
    pub instances: u32,
    /// The server's timestamp of the newest change; compared as text.
    pub version: Arc<str>,
    /// Its tasks that were started from the newest definition.
    pub current: BTreeSet<InstanceId>,
    /// Its tasks that were started from an older one.
    pub outdated: BTreeSet<InstanceId>,
    /// Deployments that are under way and touch it.
    pub deployments: BTreeMap<Arc<str>, Deployment>,
    /// Why instances are not started, as the queue says; empty where nothing waits.
    pub queued: Vec<String>,
    /// The last failure of a task of the newest definition.
    pub last_failure: Option<String>,
}

/// Whose an app is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// It carries our owner's and our fleet's label.
    Ours {
        /// The service it is for.
        service: ServiceName,
        /// What it was asked to be; `None` where the label is damaged.
        hash: Option<SpecHash>,
    },
    /// It carries another owner's labels, or another fleet's.
    Others,
    /// It carries no label of evenkeel: a document may claim it by its id.
    Nobodys,
}

/// A change that Marathon is making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// How many apps and pods it touches.
    pub touches: usize,
}

/// One thing to do with an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppStep {
    /// The host that stands for the cluster.
    pub host: HostName,
    /// The app.
    pub app: AppId,
    /// Its service.
    pub service: ServiceName,
    /// What is done.
    pub act: AppAct,
}

/// What is done with an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppAct {
    /// It is made, or made to be this.
    Put {
        /// What it is to be, ownership labels included.
        definition: Arc<Definition>,
        /// How many there are to be.
        instances: u32,
        /// What it is called to be.
        hash: SpecHash,
        /// Whether it is not there yet.
        create: bool,
        /// Whether deployments that lock it are given up. Only of one that touches nothing else.
        force: bool,
    },
    /// More or fewer instances of the same; nothing that runs is restarted.
    Scale {
        /// How many there are to be.
        instances: u32,
        /// As with [`AppAct::Put`].
        force: bool,
    },
    /// These tasks end, and as many fewer instances are asked for.
    Kill {
        /// The tasks.
        tasks: BTreeSet<InstanceId>,
    },
    /// All tasks are replaced: some are of an older definition and nothing replaces them.
    Restart {
        /// As with [`AppAct::Put`].
        force: bool,
    },
    /// The app is removed with all its tasks.
    Delete,
}

impl AppAct {
    /// Whether deployments that lock the app are given up.
    pub fn is_forced(&self) -> bool {
        match self {
            Self::Put { force, .. } | Self::Scale { force, .. } | Self::Restart { force } => *force,
            Self::Kill { .. } | Self::Delete => false,
        }
    }

    /// A closed word for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Put { create: true, .. } => "create-app",
            Self::Put { .. } => "update-app",
            Self::Scale { .. } => "scale-app",
            Self::Kill { .. } => "kill-tasks",
            Self::Restart { .. } => "restart-app",
            Self::Delete => "delete-app",
        }
    }
}

impl fmt::Display for AppStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let app = &self.app;
        match &self.act {
            AppAct::Put { create: true, instances, .. } => {
                write!(f, "create app {app} with {instances} instances")
            }
            AppAct::Put { force: true, .. } => {
                write!(f, "update app {app}, giving up the deployment that is under way")
            }
            AppAct::Put { .. } => write!(f, "update app {app}"),
            AppAct::Scale { instances, .. } => write!(f, "scale app {app} to {instances}"),
            AppAct::Kill { tasks } => {
                let names: Vec<String> = tasks.iter().map(ToString::to_string).collect();
                write!(f, "end {} of app {app} and ask for {} fewer", names.join(", "), tasks.len())
            }
            AppAct::Restart { force: true } => {
                write!(f, "restart app {app}, giving up the deployment that is under way")
            }
            AppAct::Restart { force: false } => write!(f, "restart app {app}"),
            AppAct::Delete => write!(f, "delete app {app}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_id_is_a_path_that_cannot_leave_its_url() {
        for good in ["/a", "/shop/web", "/a-b/c.d/9"] {
            assert!(AppId::new(good).is_some(), "{good} was refused");
        }
        for bad in [
            "", "/", "a", "/a/", "//a", "/A", "/a_b", "/../a", "/a/..", "/-a", "/a?b", "/a b", "/é",
        ] {
            assert!(AppId::new(bad).is_none(), "{bad:?} was taken");
        }
        let web = ServiceName::new("web").unwrap();
        assert_eq!(AppId::of("/", &web).as_str(), "/web");
        assert_eq!(AppId::of("/shop", &web).as_str(), "/shop/web");
    }

    #[test]
    fn a_definition_shows_no_value() {
        let mut definition = Definition::default();
        definition.0.insert("env".into(), serde_json::json!({"TOKEN": "hunter2"}));
        assert!(!format!("{definition:?}").contains("hunter2"));
    }
}
