//! Requests to an API server as its access control sees them, and the rules that allow them.

use std::fmt;

use k8s_openapi::api::rbac::v1::PolicyRule;

/// What one request wants to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// The API group; empty for the core one.
    pub group: String,
    /// The resource, with `/` and the subresource where there is one.
    pub resource: String,
    /// The namespace; none for all of them, and for what has none.
    pub namespace: Option<String>,
    /// The object, where it is one: a list or watch may name one by a field selector.
    pub name: Option<String>,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, group, resource, namespace, name } = self;
        write!(f, "{verb} {resource}")?;
        if !group.is_empty() {
            write!(f, ".{group}")?;
        }
        if let Some(name) = name {
            write!(f, " {name}")?;
        }
        namespace.iter().try_for_each(|namespace| write!(f, " in {namespace}"))
    }
}

impl Access {
    /// Of a request's method, path and query; none for what is not about resources, such as discovery.
    pub fn of(method: &str, path: &str, query: &str) -> Option<Self> {
        let mut parts = path.trim_matches('/').split('/').peekable();
        let group = match parts.next()? {
            "api" => String::new(),
            "apis" => parts.next()?.to_owned(),
            _ => return None,
        };
        parts.next()?;
        let mut parts: Vec<&str> = parts.collect();
        // A namespace is one too, unless something in it is meant.
        let inside = parts.first() == Some(&"namespaces")
            && parts.len() > 2
            && !["status", "finalize"].contains(&parts[2]);
        let namespace = inside.then(|| parts.drain(..2).nth(1).unwrap_or_default().to_owned());
        let mut parts = parts.into_iter();
        let resource = parts.next()?;
        let asked = |key: &str| {
            let pair = query.split('&').filter_map(|pair| pair.split_once('='));
            pair.filter(|(name, _)| *name == key).map(|(_, value)| value.to_owned()).next()
        };
        let selected = asked("fieldSelector").and_then(|selector| {
            let selector = selector.replace("%3D", "=").replace("%3d", "=");
            Some(selector.strip_prefix("metadata.name=")?.to_owned())
        });
        let named = parts.next().map(str::to_owned);
        let watched = asked("watch").is_some_and(|v| v == "true" || v == "1");
        let verb = match (method, &named) {
            ("GET", _) if watched => "watch",
            ("GET", Some(_)) => "get",
            ("GET", None) => "list",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", Some(_)) => "delete",
            ("DELETE", None) => "deletecollection",
            _ => method,
        };
        let resource = match parts.next() {
            Some(subresource) => format!("{resource}/{subresource}"),
            None => resource.to_owned(),
        };
        let name = named.or(selected);
        Some(Self { verb: verb.to_owned(), group, resource, namespace, name })
    }
}

/// A rule and where it holds.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The namespace of a role; none for a cluster role that is bound everywhere.
    pub namespace: Option<String>,
    /// The rule itself.
    pub rule: PolicyRule,
}

impl Grant {
    /// Whether it allows this.
    pub fn allows(&self, access: &Access) -> bool {
        let has = |list: Option<&Vec<String>>, what: &str| {
            list.is_some_and(|list| list.iter().any(|item| item == what))
        };
        let PolicyRule { api_groups, resource_names, resources, verbs, .. } = &self.rule;
        // A name that is made up by the server is not known yet, and one in the body is not looked at.
        let named = resource_names.as_ref().is_none_or(|names| {
            names.is_empty() || access.name.as_ref().is_some_and(|name| names.contains(name))
        });
        let here = self.namespace.is_none() || self.namespace == access.namespace;
        here && named
            && has(Some(verbs), &access.verb)
            && has(api_groups.as_ref(), &access.group)
            && has(resources.as_ref(), &access.resource)
    }

    /// What it allows that nobody ever asked for, as `verb resource.group`.
    pub fn unused(&self, seen: &[Access]) -> Vec<String> {
        let mut unused = Vec::new();
        let PolicyRule { api_groups, resource_names: _, resources, verbs, .. } = &self.rule;
        for group in api_groups.iter().flatten() {
            for resource in resources.iter().flatten() {
                for verb in verbs {
                    let used = seen.iter().any(|access| {
                        access.verb == *verb
                            && access.group == *group
                            && access.resource == *resource
                            && self.allows(access)
                    });
                    if !used {
                        unused.push(format!("{verb} {resource}.{group}"));
                    }
                }
            }
        }
        unused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, path: &str, query: &str) -> String {
        Access::of(method, path, query).map_or("-".to_owned(), |access| access.to_string())
    }

    #[test]
    fn requests_are_read_as_access_control_reads_them() {
        let fleets = "/apis/evenkeel.dev/v1alpha1/fleets";
        let web = "/apis/evenkeel.dev/v1alpha1/namespaces/shop/scalingservices/web";
        for (method, path, query, access) in [
            ("GET", fleets, "limit=500", "list fleets.evenkeel.dev"),
            ("GET", fleets, "limit=5&watch=true", "watch fleets.evenkeel.dev"),
            ("GET", web, "", "get scalingservices.evenkeel.dev web in shop"),
            ("PATCH", web, "", "patch scalingservices.evenkeel.dev web in shop"),
            (
                "PATCH",
                &format!("{web}/status"),
                "force=true",
                "patch scalingservices/status.evenkeel.dev web in shop",
            ),
            ("GET", "/api/v1/namespaces/kube-system", "", "get namespaces kube-system"),
            ("GET", "/api/v1/namespaces", "", "list namespaces"),
            ("GET", "/api/v1/namespaces/a/secrets", "", "list secrets in a"),
            (
                "GET",
                "/api/v1/namespaces/a/secrets",
                "fieldSelector=metadata.name%3Dapp&watch=1",
                "watch secrets app in a",
            ),
            (
                "POST",
                "/apis/events.k8s.io/v1/namespaces/a/events",
                "",
                "create events.events.k8s.io in a",
            ),
            ("DELETE", "/api/v1/namespaces/a/secrets", "", "deletecollection secrets in a"),
            ("GET", "/apis", "", "-"),
            ("GET", "/apis/evenkeel.dev/v1alpha1", "", "-"),
            ("GET", "/version", "", "-"),
        ] {
            assert_eq!(of(method, path, query), access, "{method} {path}?{query}");
        }
    }

    #[test]
    fn a_grant_allows_what_it_names_and_nothing_else() {
        let words = |words: &[&str]| words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>();
        let rule = PolicyRule {
            api_groups: Some(words(&["coordination.k8s.io"])),
            resources: Some(words(&["leases"])),
            resource_names: Some(words(&["evenkeel"])),
            verbs: words(&["get", "update"]),
            ..PolicyRule::default()
        };
        let grant = Grant { namespace: Some("evenkeel".into()), rule };
        let lease = |method, namespace: &str, name: &str| {
            let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}");
            Access::of(method, &path, "").unwrap()
        };
        let get = lease("GET", "evenkeel", "evenkeel");
        assert!(grant.allows(&get));
        assert!(!grant.allows(&lease("PATCH", "evenkeel", "evenkeel")));
        assert!(!grant.allows(&lease("GET", "evenkeel", "other")));
        assert!(!grant.allows(&lease("GET", "shop", "evenkeel")));
        assert_eq!(grant.unused(&[get]), ["update leases.coordination.k8s.io"]);
    }
}
