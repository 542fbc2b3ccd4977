//! One member of a Marathon cluster: where it is, and whom it may send us to.

use std::fmt;

use reqwest::Url;

/// Where a member is.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Member {
    url: Url,
}

impl Member {
    /// A base URL of a document, which were checked there; a path in front of the API is kept.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let url = Url::parse(url.trim()).ok()?;
        (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(Self { url })
    }

    pub(super) fn join(&self, path: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.url.clone();
        let front = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{front}{path}"));
        url.set_query(None);
        url.set_fragment(None);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Whether a URL leads to this very member.
    pub(super) fn is_of(&self, url: &Url) -> bool {
        self.url.origin() == url.origin()
    }

    /// Whether a URL leads to the leader that this member named, as `host:port`, and no less safely than to itself.
    pub(super) fn may_follow(&self, url: &Url, leader: &str) -> bool {
        let Some(host) = url.host_str() else { return false };
        let port = url.port_or_known_default().unwrap_or_default();
        let safe = url.scheme() == self.url.scheme() || url.scheme() == "https";
        let named = leader.rsplit('/').next().unwrap_or(leader);
        // The port that a leader names is that of plain HTTP, or the same as ours.
        let same_port = self.url.port_or_known_default() == Some(port);
        let leader_host = named.rsplit_once(':').map_or(named, |(host, _)| host);
        safe && (named == format!("{host}:{port}") || (leader_host == host && same_port))
    }
}

/// A URL without what may be secret in it.
pub(super) fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    format!("{}://{host}{port}{}", url.scheme(), url.path().trim_end_matches('/'))
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.url))
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn a_path_in_front_is_kept_and_secrets_are_not_shown() {
        let member = Member::parse("https://u:word@m.example/service/marathon/").unwrap();
        let joined = member.join("/v2/apps", &[("embed", "apps.tasks"), ("embed", "a b")]);
        assert!(joined.as_str().ends_with("/service/marathon/v2/apps?embed=apps.tasks&embed=a+b"));
        assert_eq!(format!("{member:?}"), "https://m.example/service/marathon");
        for bad in ["", "m:8080", "ftp://m/", "unix:///x"] {
            assert!(Member::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn only_the_leader_is_followed_and_never_out_of_encryption() {
        let plain = Member::parse("http://m1:8080").unwrap();
        assert!(plain.may_follow(&url("http://m2:8080/v2/events"), "m2:8080"));
        assert!(plain.may_follow(&url("https://m2:8080/v2/events"), "m2:8080"));
        assert!(!plain.may_follow(&url("http://evil:8080/v2/events"), "m2:8080"));
        assert!(!plain.may_follow(&url("http://m2:99/v2/events"), "m2:8081"));
        let safe = Member::parse("https://m1:8443").unwrap();
        assert!(safe.may_follow(&url("https://m2:8443/v2/events"), "m2:8080"));
        assert!(!safe.may_follow(&url("http://m2:8080/v2/events"), "m2:8080"));
    }
}
