//! What HAProxy says, as values. Nothing here can fail: what makes no sense is not there.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::assign::{Admin, Place, Places};
use super::render::{Culprit, LeftOut, Rendered};
use super::words::Section;

/// The most lines that are read of one answer.
const MOST_LINES: usize = 100_000;
/// The longest reason that is kept, in characters.
const LONGEST_REASON: usize = 300;

/// The answer to `show env`: which structure is in force.
pub(super) fn mark<'a>(answer: &'a str, variable: &str) -> Option<&'a str> {
    let value = answer.trim().strip_prefix(variable)?.strip_prefix('=')?;
    value.bytes().all(|b| b.is_ascii_alphanumeric()).then_some(value)
}

/// A pool in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct InPool {
    /// What this worker numbers it.
    pub(super) id: u32,
    pub(super) places: Places,
    /// What this worker numbers each place.
    pub(super) ids: BTreeMap<u32, u32>,
}

/// The answer to `show servers state`: the places of each pool.
pub(super) fn pools(answer: &str) -> BTreeMap<String, InPool> {
    let mut columns = BTreeMap::new();
    let mut out: BTreeMap<String, InPool> = BTreeMap::new();
    for line in answer.lines().take(MOST_LINES) {
        if let Some(header) = line.strip_prefix("# ") {
            columns = header.split(' ').enumerate().map(|(at, name)| (name, at)).collect();
            continue;
        }
        let fields: Vec<&str> = line.split(' ').collect();
        let get = |name: &str| columns.get(name).and_then(|at| fields.get(*at)).copied();
        let place = || {
            let ip: IpAddr = get("srv_addr")?.parse().ok()?;
            let port = get("srv_port")?.parse().ok()?;
            let admin: u32 = get("srv_admin_state")?.parse().ok()?;
            let admin = match (admin & MAINTENANCE, admin & DRAIN) {
                (0, 0) => Admin::Ready,
                (0, _) => Admin::Drain,
                (_, _) => Admin::Maint,
            };
            let up = get("srv_op_state")? != "0";
            Some(Place { address: SocketAddr::new(ip.to_canonical(), port), admin, up })
        };
        let (Some(pool), Some(k)) = (get("be_name"), get("srv_name").and_then(number)) else {
            continue;
        };
        let Some(place) = place() else { continue };
        let its = match out.get_mut(pool) {
            Some(its) => its,
            None => out.entry(pool.to_owned()).or_default(),
        };
        its.places.insert(k, place);
        let id = |name: &str| get(name).and_then(|n| n.parse().ok());
        if let (Some(of), Some(own)) = (id("be_id"), id("srv_id")) {
            its.id = of;
            its.ids.insert(k, own);
        }
    }
    out
}

/// Maintenance that was asked for, inherited, or for want of an address.
const MAINTENANCE: u32 = 0x01 | 0x02 | 0x20;
/// A drain that was asked for or inherited.
const DRAIN: u32 = 0x08 | 0x10;

/// The number of a place in its name.
fn number(name: &str) -> Option<u32> {
    name.rsplit_once('_')?.1.parse().ok().filter(|k| *k > 0)
}

/// One place by the answer to `show stat` for it alone: what it is, its sessions now, and all up to now. `None` where
/// that does not tell: of a server that is down it does not say whether it drains.
pub(super) fn place(answer: &str) -> Option<(Place, (u32, u64))> {
    let mut lines = answer.lines().filter(|line| !line.is_empty());
    let columns: Vec<&str> = lines.next()?.strip_prefix("# ")?.split(',').collect();
    let fields: Vec<&str> = lines.next()?.split(',').collect();
    let get =
        |name: &str| columns.iter().position(|c| *c == name).and_then(|at| fields.get(at)).copied();
    let (admin, up) = match get("status")?.split(' ').next()? {
        "UP" | "no" | "NOLB" => (Admin::Ready, true),
        "DRAIN" => (Admin::Drain, true),
        "MAINT" => (Admin::Maint, false),
        _ => return None,
    };
    let address: SocketAddr = get("addr")?.parse().ok()?;
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    let sessions = (get("scur")?.parse().ok()?, get("stot")?.parse().ok()?);
    Some((Place { address, admin, up }, sessions))
}

/// Counters of `show stat`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Counters {
    /// Of each place: sessions now, and all up to now.
    pub(super) places: BTreeMap<String, BTreeMap<u32, (u32, u64)>>,
    /// Requests, or connections where there are no requests, that were taken.
    pub(super) requests: u64,
}

/// The answer to `show stat`.
pub(super) fn counters(answer: &str) -> Counters {
    let mut columns = BTreeMap::new();
    let mut out = Counters::default();
    for line in answer.lines().take(MOST_LINES) {
        if let Some(header) = line.strip_prefix("# ") {
            columns = header.split(',').enumerate().map(|(at, name)| (name, at)).collect();
            continue;
        }
        // What a check said last is quoted and may hold a comma; nothing that is read stands behind it but `mode`,
        // for which the end of the line does.
        let fields: Vec<&str> = line.split(',').collect();
        let get = |name: &str| columns.get(name).and_then(|at| fields.get(*at)).copied();
        let count = |name| get(name).and_then(|n| n.parse::<u64>().ok());
        let (Some(pool), Some(server)) = (get("pxname"), get("svname")) else { continue };
        if server == "FRONTEND" && pool.starts_with("listener:") {
            let taken = count("req_tot").filter(|n| *n > 0).or_else(|| count("stot"));
            out.requests = out.requests.saturating_add(taken.unwrap_or_default());
        } else if let Some(k) = number(server) {
            let now = u32::try_from(count("scur").unwrap_or_default()).unwrap_or(u32::MAX);
            let its = match out.places.get_mut(pool) {
                Some(its) => its,
                None => out.places.entry(pool.to_owned()).or_default(),
            };
            its.insert(k, (now, count("stot").unwrap_or_default()));
        }
    }
    out
}

/// Whom `haproxy -c` means, as far as it says, and what it said of each.
pub(super) fn blame(output: &str, file: &str, rendered: &Rendered) -> LeftOut {
    let mut out = LeftOut::new();
    for line in output.lines().take(MOST_LINES).filter(|line| line.contains("[ALERT]")) {
        let culprit = certificate(line, rendered)
            .or_else(|| {
                let at = format!("{file}:");
                let rest = line.split_once(&at)?.1;
                let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
                let number: usize = digits.parse().ok()?;
                rendered.owners.get(number.checked_sub(1)?)?.clone()
            })
            .or_else(|| quoted(line).find_map(|name| owner(rendered, name)));
        if let Some(culprit) = culprit {
            out.entry(culprit).or_insert_with(|| reason(line, file));
        }
    }
    out
}

fn certificate(line: &str, rendered: &Rendered) -> Option<Culprit> {
    let rest = line.split_once(&format!("{}/", rendered.certificates))?.1;
    let name = rest.split(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c))).next()?;
    let name = name.split_once('.')?.1.trim_end_matches('.');
    (name != "list").then(|| Culprit::Certificate(name.to_owned()))
}

fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('\'').skip(1).step_by(2)
}

/// Of messages that name a pool or a place instead of a line.
fn owner(rendered: &Rendered, named: &str) -> Option<Culprit> {
    let named = named.split('/').next()?;
    rendered
        .owners
        .iter()
        .flatten()
        .find(|c| match c {
            Culprit::Pool(pool) => pool.as_str() == named,
            Culprit::Listener(listener) => named.strip_prefix("listener:") == Some(listener),
            Culprit::Route(_) | Culprit::Certificate(_) | Culprit::Fragment(_) => false,
        })
        .cloned()
}

/// What is left of a line once all that is ours is cut off.
pub(super) fn reason(line: &str, file: &str) -> String {
    let said = line.split_once("[ALERT]").map_or(line, |(_, rest)| rest);
    let said =
        said.trim_start().trim_start_matches(|c: char| c == '(' || c == ')' || c.is_ascii_digit());
    let said = said.trim_start_matches([' ', ':']);
    let said = said.strip_prefix("config : ").unwrap_or(said);
    let said = match said.split_once(file) {
        Some((_, rest)) => {
            rest.trim_start_matches(|c: char| c.is_ascii_digit() || ":] ".contains(c))
        }
        None => said,
    };
    let short: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
    short.chars().take(LONGEST_REASON).collect()
}

/// What HAProxy said where nobody can be blamed.
pub(super) fn first_alert(output: &str, file: &str) -> String {
    let alerts = output.lines().filter(|l| l.contains("[ALERT]"));
    let line = alerts.chain(output.lines()).next().unwrap_or("haproxy refuses it without a word");
    reason(line, file)
}

/// Every fragment there is, for when HAProxy cannot say who is at fault: our own text passes its tests.
pub(super) fn all_fragments(rendered: &Rendered, why: &str) -> LeftOut {
    let used = |s: &Section| rendered.owners.contains(&Some(Culprit::Fragment(*s)));
    let used = Section::ALL.into_iter().filter(used);
    used.map(|s| (Culprit::Fragment(s), why.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::edge::haproxy::{CERTIFICATES, MARK};

    const STATE: &str = "\
1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_port
4 web.8080 1 web_1 127.0.0.1 0 0 1 28081
4 web.8080 2 web_2 10.0.0.7 2 12 1 80
4 web.8080 3 web_3 ::1 0 5 1 81
5 other 1 odd 10.0.0.8 2 0 1 82
5 other 1 odd_2
";

    #[test]
    fn states_are_read_by_their_columns() {
        let all = pools(STATE);
        let place =
            |address: &str, admin, up| Place { address: address.parse().unwrap(), admin, up };
        let web: Places = [
            (1, place("127.0.0.1:28081", Admin::Ready, false)),
            (2, place("10.0.0.7:80", Admin::Drain, true)),
            (3, place("[::1]:81", Admin::Maint, false)),
        ]
        .into();
        let ids = [(1, 1), (2, 2), (3, 3)].into();
        let web = InPool { id: 4, places: web, ids };
        assert_eq!(all, BTreeMap::from([("web.8080".to_owned(), web)]));
        assert_eq!(mark("EVENKEEL_TABLE=0a1b\n", MARK), Some("0a1b"));
        assert_eq!(mark("Variable not found\n", MARK), None);
    }

    #[test]
    fn counters_are_read_by_their_columns() {
        let text = "\
# pxname,svname,qcur,scur,stot,status,addr,req_tot,mode,
listener:http,FRONTEND,,3,70,OPEN,,90,http,
listener:db,FRONTEND,,3,7,OPEN,,,tcp,
GLOBAL,FRONTEND,,3,1000,OPEN,,1000,http,
web.8080,web_1,0,2,41,UP,127.0.0.1:28081,,http,
";
        let all = counters(text);
        assert_eq!(all.requests, 97);
        assert_eq!(all.places, BTreeMap::from([("web.8080".to_owned(), [(1, (2, 41))].into())]));
    }

    #[test]
    fn one_place_is_read_by_itself_where_its_state_tells() {
        let said = |status: &str, addr: &str| {
            place(&format!(
                "# pxname,svname,scur,stot,status,addr,\nweb.8080,web_1,2,41,{status},{addr},\n\n"
            ))
        };
        let at = "10.0.0.7:80".parse().unwrap();
        for (status, admin, up) in [
            ("UP", Admin::Ready, true),
            ("UP 1/3", Admin::Ready, true),
            ("no check", Admin::Ready, true),
            ("DRAIN 1/3", Admin::Drain, true),
            ("MAINT (resolution)", Admin::Maint, false),
        ] {
            let found = said(status, "10.0.0.7:80");
            assert_eq!(found, Some((Place { address: at, admin, up }, (2, 41))), "{status}");
        }
        assert_eq!(said("UP", "[::1]:81").unwrap().0.address, "[::1]:81".parse().unwrap());
        assert_eq!(said("DOWN", "10.0.0.7:80"), None, "whether it drains is not said");
        assert_eq!(said("UP", ""), None);
        assert_eq!(place("# pxname,svname\n\n"), None);
    }

    #[test]
    fn who_is_meant_is_found_by_line_by_file_and_by_name() {
        let (_, rendered) = crate::edge::haproxy::tests::rendered();
        let at = |needle: &str| rendered.text.lines().position(|l| l.contains(needle)).unwrap() + 1;
        let said = format!(
            "[NOTICE]   (1) : haproxy version is 2.6\n\
             [ALERT]    (20) : config : parsing [/x/c:{}] : unknown keyword 'nonsense'\n\
             [ALERT]    (20) : config : parsing [/x/c:{}] : 'bind :443' in section 'frontend' : unable to load \
             certificate from file '{CERTIFICATES}/00ff.tls.shop.pem': no start line.\n\
             [ALERT]    (20) : config : backend 'api.9000' has no luck.\n\
             [ALERT]    (20) : config : Fatal errors found in configuration.\n",
            at("maxconn 1000"),
            at("bind :443"),
        );
        let all: Vec<_> = blame(&said, "/x/c", &rendered).into_iter().collect();
        assert_eq!(all.len(), 3, "{all:?}");
        assert!(matches!(&all[0], (Culprit::Pool(p), _) if p.as_str() == "api.9000"), "{all:?}");
        let why = "'bind :443' in section 'frontend' : unable";
        assert!(
            matches!(&all[1], (Culprit::Certificate(c), w) if c == "tls.shop.pem" && w.contains(why)),
            "{all:?}"
        );
        assert_eq!(
            all[2],
            (Culprit::Fragment(Section::Defaults), "unknown keyword 'nonsense'".into())
        );
        assert_eq!(first_alert("[ALERT] (1) : config : no luck\n", "/x/c"), "no luck");
    }

    proptest! {
        #[test]
        fn chance_bytes_are_read_without_harm(text in "\\PC*", cut in 0..STATE.len()) {
            let (_, rendered) = crate::edge::haproxy::tests::rendered();
            let half = STATE.get(..cut).unwrap_or_default();
            for text in [text.clone(), format!("{half}{text}\n{half}")] {
                let _ = (mark(&text, MARK), pools(&text), counters(&text), place(&text));
                let _ = blame(&format!("[ALERT] {text} /x/c:{text}"), "/x/c", &rendered);
                let _ = first_alert(&text, "/x/c");
            }
        }

        #[test]
        fn any_table_is_read_without_harm(
            rows in proptest::collection::vec(proptest::collection::vec("[0-9a-z_.:# -]{0,6}", 0..9), 0..9),
        ) {
            let rows: Vec<_> = rows.iter().map(|r| r.join(" ")).collect();
            let _ = pools(&format!("1\n# be_name srv_name srv_addr srv_port srv_admin_state srv_op_state\n{}", rows.join("\n")));
            let _ = counters(&format!("# pxname,svname,scur,stot\n{}", rows.join("\n").replace(' ', ",")));
        }
    }
}
