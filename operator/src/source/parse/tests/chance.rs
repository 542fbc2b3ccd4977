//! Bytes by chance, and bytes by malice: never a panic, always quick, always a place.

use std::fmt::Write;

use proptest::prelude::*;

use super::*;

const GOOD: &str = include_str!("../../../../../crds/tests/examples/scalingservice.yaml");

fn many() -> String {
    let mut text =
        fleet("shop", "[{name: h1, endpoint: \"unix:///a\", labels: {environment: test}}]");
    for name in ["web", "api", "db"] {
        text += "---\n";
        text +=
            &service("{image: &i a, fleet: shop, args: [*i], env: [{name: A, value: \"b\\n\"}]}")
                .replace("web", name);
    }
    text += "---\n";
    text += GOOD;
    // Its routes lead here.
    text + "---\n"
        + "apiVersion: evenkeel.dev/v1alpha1\nkind: LoadBalancer\nmetadata: {name: edge}\nspec:\n  \
           fleet: shop\n  provider: {haproxy: {}}\n  listeners: [{name: http, port: 80, publish: 8181}, \
           {name: db, port: 5432, protocol: tcp}]\n  networks: [backend]\n"
}

/// Every problem has a place inside its file.
fn places(files: &Files, desired: &Desired) -> Result<(), TestCaseError> {
    for p in &desired.problems {
        let bytes = files.get(&p.path).ok_or_else(|| TestCaseError::fail(p.to_string()))?;
        let lines = bytes.iter().filter(|b| matches!(b, b'\n' | b'\r')).count() + 1;
        prop_assert!(p.line <= lines && (p.line == 0) == (p.column == 0), "{p} of {lines} lines");
        prop_assert!(p.column <= bytes.len() + 1, "{p}");
        prop_assert!(!p.message.is_empty() && !p.message.ends_with('.'), "{p}");
        prop_assert!(!p.message.chars().any(char::is_control), "{p}");
    }
    Ok(())
}

fn survive(bytes: Vec<u8>) -> Result<Desired, TestCaseError> {
    let files: Files = [("a.yaml".to_owned(), bytes)].into();
    let (first, applied) = parse_with(&files, &Applied::default());
    places(&files, &first)?;
    let (second, again) = parse_with(&files, &Applied::default());
    prop_assert_eq!(format!("{first:?}"), format!("{second:?}"));
    prop_assert_eq!(&applied, &again);
    // What is in force is good by itself.
    let (_, kept) = parse_with(&[("a.yaml".to_owned(), vec![0])].into(), &applied);
    prop_assert_eq!(&kept.objects, &applied.objects);
    Ok(first)
}

fn yamlish() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("apiVersion: evenkeel.dev/v1alpha1\n"),
        Just("kind: ScalingService\n"),
        Just("kind: Fleet\n"),
        Just("metadata: {name: web}\n"),
        Just("spec:\n"),
        Just("spec: {image: a}\n"),
        Just("  image: a\n"),
        Just("---\n"),
        Just("...\n"),
        Just("- "),
        Just("? "),
        Just(": "),
        Just("&a "),
        Just("*a "),
        Just("!!str "),
        Just("!x "),
        Just("<<: "),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(", "),
        Just("\n"),
        Just("  "),
        Just("\t"),
        Just("\""),
        Just("'"),
        Just("|\n"),
        Just(">-\n"),
        Just("# c\n"),
        Just("%TAG ! x\n"),
        Just("0123"),
        Just("é"),
        Just("\r"),
        Just("\u{feff}"),
        Just("\u{2028}"),
        Just("\\x"),
    ];
    prop::collection::vec(word, 0..60).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        survive(bytes)?;
    }

    #[test]
    fn any_text(text in "\\PC{0,400}") {
        survive(text.into_bytes())?;
    }

    #[test]
    fn pieces_of_yaml(text in yamlish()) {
        survive(text.into_bytes())?;
    }

    #[test]
    fn good_documents_damaged(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        length in 0_usize..40,
        twice in any::<bool>(),
    ) {
        let mut bytes = many().into_bytes();
        for (at, with) in flips {
            let at = at.index(bytes.len());
            bytes[at] = with;
        }
        let from = cut.index(bytes.len());
        let piece = bytes[from..(from + length).min(bytes.len())].to_vec();
        if twice {
            bytes.splice(from..from, piece);
        } else {
            bytes.drain(from..from + piece.len());
        }
        survive(bytes)?;
    }

    /// Which file a document is in, and before which other, does not matter.
    #[test]
    fn the_order_of_files_does_not_matter(order in Just((0..8_usize).collect::<Vec<_>>()).prop_shuffle()) {
        let mut documents: Vec<String> =
            (0..5).map(|n| service("{image: a, fleet: shop}").replace("web", &format!("s{n}"))).collect();
        documents.push(fleet("shop", "[{name: h1, endpoint: \"unix:///a\"}]"));
        documents.push(service("{image: a, fleet: shop, ports: [{name: x, containerPort: 1, publish: 1}]}"));
        documents.push(service("{image: a, ports: [{name: x, containerPort: 1, publish: 1}]}").replace("web", "y"));
        let named = |order: &[usize]| -> Files {
            order.iter().enumerate().map(|(at, doc)| (format!("{at}.yaml"), documents[*doc].clone().into_bytes())).collect()
        };
        let (plain, _) = parse_with(&named(&(0..8).collect::<Vec<_>>()), &Applied::default());
        let (shuffled, _) = parse_with(&named(&order), &Applied::default());
        prop_assert_eq!(&plain.services, &shuffled.services);
        prop_assert_eq!(&plain.fleets, &shuffled.fleets);
        prop_assert_eq!(&plain.held, &shuffled.held);
        prop_assert_eq!(plain.problems.len(), 0);
    }
}

#[test]
fn the_undamaged_documents_are_good() {
    assert_eq!(told(&many()), "");
}

#[test]
fn aliases_cannot_explode() {
    let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
    for (was, now) in ('a'..='y').zip('b'..='z') {
        let _ = writeln!(
            bomb,
            "{now}: &{now} [*{was}, *{was}, *{was}, *{was}, *{was}, *{was}, *{was}, *{was}, *{was}]"
        );
    }
    assert_eq!(told(&bomb), "a.yaml:6:8: aliases make more than 200000 values of this file");
}

#[test]
fn what_is_too_much_is_said() {
    let deep =
        |n: usize, open: &str, close: &str| format!("a: {}{}", open.repeat(n), close.repeat(n));
    for (text, expect) in [
        (deep(100, "[", "]"), "a.yaml:1:67: nested deeper than 64 levels"),
        (deep(100_000, "[", "]"), "a.yaml:1:259: nested deeper than 64 levels"),
        (deep(100_000, "{a: ", "}"), "a.yaml:1:256: nested deeper than 64 levels"),
        ("- ".repeat(100_000), "a.yaml:1:129: nested deeper than 64 levels"),
        ("? ".repeat(100_000), "a.yaml:1:129: nested deeper than 64 levels"),
        (
            format!("a: [{}]", "x, ".repeat(300_000)),
            "a.yaml:1:599996: more than 200000 values in a file\n  hint: split it into several files",
        ),
        (
            format!("a: {}", "x".repeat(200_000)),
            "a.yaml:1:1: apiVersion is missing\n  hint: write apiVersion: evenkeel.dev/v1alpha1\na.yaml:1:4: a text of 200000 bytes, and 131072 are the most",
        ),
        (
            " ".repeat(5 << 20),
            "a.yaml: the file has 5242880 bytes, and 4194304 are the most\n  hint: split it into several files",
        ),
        (
            "---\na: b\n".repeat(201).replace("a: b", "apiVersion: v1\nkind: X"),
            "a.yaml:601:1: more than 200 documents in a file\n  hint: split it into several files",
        ),
    ] {
        let told = told(&text);
        assert_eq!(told, expect, "{text:.40}");
    }
}

#[test]
fn bytes_that_are_no_text_have_a_place() {
    for (bytes, expect) in [
        (
            &b"a: b\n\xffc: d"[..],
            "a.yaml:2:1: the file is not UTF-8 text\n  hint: save it as UTF-8\n",
        ),
        (b"a: \xc3\xa9\xc3", "a.yaml:1:5: the file is not UTF-8 text\n  hint: save it as UTF-8\n"),
        (
            b"\xff\xfea\0",
            "a.yaml:1:1: the file is not UTF-8 text\n  hint: it looks like UTF-16: save it as UTF-8\n",
        ),
        (
            b"a: b\r\nc\0: d",
            "a.yaml:2:2: control character 0x00 in the file\n  hint: it is not a text file, or is damaged\n",
        ),
        (
            b"a: \x1b[2J",
            "a.yaml:1:4: control character 0x1b in the file\n  hint: it is not a text file, or is damaged\n",
        ),
    ] {
        let files: Files = [("a.yaml".to_owned(), bytes.to_vec())].into();
        let (desired, _) = parse_with(&files, &Applied::default());
        assert_eq!(
            render_problems(&desired.problems, ""),
            format!("{expect}1 problem in 1 file\n")
        );
    }
}

fn fleet_of(services: usize, spec: &str) -> Files {
    (0..services)
        .map(|n| {
            (format!("{n:05}.yaml"), service(spec).replace("web", &format!("s{n}")).into_bytes())
        })
        .collect()
}

#[test]
fn thousands_of_files_and_no_more_than_the_limit() {
    let (desired, applied) = parse_with(&fleet_of(3_000, "{image: a}"), &Applied::default());
    assert_eq!((desired.services.len(), desired.problems.len()), (3_000, 0));
    let owner = owner();
    let ctx = Context {
        owner: &owner,
        secrets: &OneSecret,
        previous: &applied,
        limits: Limits { documents: 1_000, ..Limits::default() },
        default_endpoint: DEFAULT_ENDPOINT,
    };
    let (desired, kept) = parse("r", &shared(&fleet_of(3_000, "{image: b}")), &[], &ctx);
    assert_eq!(
        render_problems(&desired.problems, ""),
        "01000.yaml:1:1: more than 1000 documents: this one and all after it are not read\n1 problem in 1 file\n"
    );
    // Those that were not read are held.
    assert_eq!(
        (desired.services.len(), desired.held.len(), kept.objects().count()),
        (3_000, 2_000, 3_000)
    );
}

#[test]
fn a_chain_of_falling_back_ends() {
    // Each service moves to the port that its neighbour leaves, and the last one's document is broken.
    let at = |shift: usize, broken: bool| -> Files {
        (0..40)
            .map(|n| {
                let port = 1000 + n + shift;
                let wrong = if broken && n == 39 { ", oops: 1" } else { "" };
                let spec = format!("{{image: a{shift}, ports: [{{name: x, containerPort: 1, publish: {port}}}]{wrong}}}");
                (format!("{n:02}.yaml"), service(&spec).replace("web", &format!("s{n}")).into_bytes())
            })
            .collect()
    };
    let (_, applied) = parse_with(&at(0, false), &Applied::default());
    let (desired, _) = parse_with(&at(1, true), &applied);
    assert_eq!(desired.services.len(), 40);
    assert_eq!(desired.held.len(), 40, "none may take a port that another still has");
    let ports: BTreeSet<_> =
        desired.services.values().filter_map(|s| s.spec.ports[0].publish).collect();
    assert_eq!(ports.len(), 40);
}

/// Measured by hand in release: see the commit's message.
#[test]
fn ten_thousand_documents_are_quick_even_here() {
    let files = fleet_of(
        10_000,
        "{image: a, env: [{name: A, value: b}], ports: [{name: http, containerPort: 80}]}",
    );
    let (desired, _) = parse_with(&files, &Applied::default());
    assert_eq!(desired.services.len(), 10_000);
}

/// One of several documents for a name: good ones, wrong ones, one that asks for a secret, one that is none.
fn variant(name: usize, form: usize) -> Option<Vec<u8>> {
    let name = format!("s{name}");
    let text = match form {
        0 => return None,
        1 => service("{image: a, fleet: shop}"),
        2 => service("{image: b, fleet: shop, replicas: 3}"),
        3 => service("{image: a, fleet: nowhere}"),
        4 => service("{image: a, colour: red}"),
        5 => service("{image: a, env: [{name: T, secret: {name: app, key: token}}]}"),
        6 => service("{image: a, env: [{name: T, secret: {name: app, key: other}}]}"),
        7 => service("{image: a, ports: [{name: x, containerPort: 1, publish: 1}]}"),
        8 => "apiVersion: v1\nkind: Secret\n".to_owned(),
        9 => service("{image: a}") + "---\n" + &service("{image: a}").replace("web", "twin"),
        10 => "{".to_owned(),
        _ => {
            service("{image: a, routes: [{loadBalancer: edge, listener: http, host: h, port: x}]}")
        }
    };
    Some(text.replace("web", &name).into_bytes())
}

/// A place for secrets whose values change.
struct Turning(usize);

impl Secrets for Turning {
    fn get(&self, name: &str, key: &str) -> Result<Secret, String> {
        match (key, self.0) {
            ("token", n) => Ok(Secret::new(&format!("{name} {n}"))),
            ("other", 1) => Ok(Secret::new("it is there now")),
            _ => Err("it is not there".into()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever changes in whatever order, and whoever turns a secret meanwhile: what is kept of the files changes nothing.
    #[test]
    fn what_is_kept_of_files_is_what_reading_them_all_gives(
        changes in prop::collection::vec((0..6_usize, 0..12_usize, 0..3_usize, any::<bool>()), 1..25),
    ) {
        let (one, two) = (owner(), OwnerId::new("other").unwrap());
        let shop = fleet("shop", "[{name: h1, endpoint: \"unix:///a\"}]");
        let mut files = files(&[("a/Fleet/shop", &shop)]);
        let mut known = Known::default();
        let (mut kept, mut whole) = (Applied::default(), Applied::default());
        let mut leaving = BTreeSet::new();
        for (step, (name, form, turn, leaves)) in changes.into_iter().enumerate() {
            let path = format!("a/ScalingService/{name}");
            match variant(name, form) {
                Some(bytes) => files.insert(path.clone(), bytes),
                None => files.remove(&path),
            };
            if leaves { leaving.insert(path) } else { leaving.remove(&path) };
            let objects = crate::source::Objects { root: String::new(), leaving: leaving.clone() };
            // As objects of an API, and as files; the installation is another once.
            let api = (form % 2 == 0).then_some(&objects);
            let owner = if step == 12 { &two } else { &one };
            let secrets = Turning(turn);
            let read = |previous: &Applied, known: &mut Known| {
                let limits = Limits { documents: 7, ..Limits::default() };
                let default_endpoint = DEFAULT_ENDPOINT;
                let ctx = Context { owner, secrets: &secrets, previous, limits, default_endpoint };
                parse_objects("r", &shared(&files), &[], api, &ctx, known)
            };
            let (quick, quick_applied) = read(&kept, &mut known);
            let (slow, slow_applied) = read(&whole, &mut Known::default());
            // The values of secrets are not shown, and are in what is hashed.
            prop_assert_eq!(format!("{quick:?}"), format!("{slow:?}"));
            prop_assert_eq!(quick.services, slow.services);
            prop_assert_eq!(quick.fleets, slow.fleets);
            prop_assert_eq!(&quick_applied, &slow_applied);
            (kept, whole) = (quick_applied, slow_applied);
        }
    }
}

#[test]
fn what_is_as_it_was_is_not_read_again() {
    let ctx = Context {
        owner: &owner(),
        secrets: &OneSecret,
        previous: &Applied::default(),
        limits: Limits::default(),
        default_endpoint: DEFAULT_ENDPOINT,
    };
    let mut known = Known::default();
    let of = |image: &str| service(&format!("{{image: {image}}}")).replace("web", "api");
    let before =
        known.read(&shared(&files(&[("a", &service("{image: a}")), ("b", &of("a"))])), &ctx);
    let after =
        known.read(&shared(&files(&[("a", &service("{image: a}")), ("b", &of("b"))])), &ctx);
    assert!(std::sync::Arc::ptr_eq(&before[0], &after[0]));
    assert!(!std::sync::Arc::ptr_eq(&before[1], &after[1]));
}
