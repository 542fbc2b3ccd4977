//! The order in which a listener's routes are asked: the host decides first, then the longest path.

use std::collections::BTreeMap;

use crate::model::Route;

/// The routes of one host of one listener, the longest path first.
pub(super) struct Site<'a> {
    pub(super) host: Host<'a>,
    pub(super) routes: Vec<&'a Route>,
}

/// Which requests are a site's. The order is the one in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Host<'a> {
    Exactly(&'a str),
    /// The longest first, so that the nearest parent decides. Without the star, with the dot.
    Below(std::cmp::Reverse<usize>, &'a str),
    /// Every host that no other route names.
    Any,
}

impl<'a> Host<'a> {
    fn of(route: &'a Route) -> Self {
        match route.host.as_deref() {
            None => Self::Any,
            Some(host) => match host.strip_prefix('*') {
                Some(parent) => Self::Below(std::cmp::Reverse(parent.len()), parent),
                None => Self::Exactly(host),
            },
        }
    }
}

/// Groups routes by host.
pub(super) fn sites<'a>(routes: impl Iterator<Item = &'a Route>) -> Vec<Site<'a>> {
    let mut by_host: BTreeMap<Host<'_>, Vec<&Route>> = BTreeMap::new();
    for route in routes {
        by_host.entry(Host::of(route)).or_default().push(route);
    }
    let site = |(host, mut routes): (_, Vec<&'a Route>)| {
        routes.sort_by_key(|r| (std::cmp::Reverse(r.path.trim_end_matches('/').len()), &r.path));
        Site { host, routes }
    };
    by_host.into_iter().map(site).collect()
}
