//! Words, files and what comes of them.

use super::args::{Listen, RunArgs, duration};
use super::*;
use crate::telemetry::LogFormat;
use std::path::Path;
use std::time::Duration;

fn read(words: &str) -> Result<Cli, String> {
    let words = std::iter::once("evenkeel").chain(words.split_whitespace());
    Cli::read(words).map_err(|e| match e {
        ReadError::Words(e) => e.to_string(),
        ReadError::Other(e) => format!("{e} / {}", e.hint.clone().unwrap_or_default()),
    })
}

fn run(words: &str) -> RunArgs {
    let cli = read(words).unwrap_or_else(|e| panic!("{words}: {e}"));
    let Command::Run(args) = cli.command else { panic!("{words} is no run") };
    *args
}

#[test]
fn the_definition_holds_together_and_every_help_has_an_example() {
    Cli::command().debug_assert();
    let names: Vec<String> =
        Cli::command().get_subcommands().map(|s| s.get_name().to_owned()).collect();
    let all =
        ["run", "plan", "check", "render", "import", "status", "crd", "schema", "completions"];
    assert_eq!(names, all);
    let nested = ["import marathon", "import compose", ""];
    for name in all.iter().chain(&nested) {
        let help = read(&format!("{name} --help")).unwrap_err();
        assert!(help.contains("Example") && help.contains("evenkeel"), "{name}:\n{help}");
        assert!(help.contains("--output <FORMAT>"), "{name} has no -o:\n{help}");
    }
}

#[test]
fn every_setting_has_an_environment_variable_of_the_same_name_and_hides_its_value() {
    let command = Cli::command();
    for sub in command.get_subcommands().filter(|s| ["run", "plan"].contains(&s.get_name())) {
        for arg in sub.get_arguments().chain(command.get_arguments()) {
            let Some(long) = arg.get_long().filter(|l| !["help", "version", "demo"].contains(l))
            else {
                continue;
            };
            let expected = format!("EVENKEEL_{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().unwrap_or_default().to_str().unwrap(), expected, "--{long}");
            assert!(arg.is_hide_env_values_set(), "--{long} shows its value in --help");
        }
    }
}

#[test]
fn sources_are_chosen_and_conflicts_refused() {
    let args = run("run --git https://x/y.git --branch main --path prod --interval 1m30s");
    let Ok(SourceChoice::Git { url, reference, path, interval, .. }) = args.source.choose() else {
        panic!("{:?}", args.source.choose());
    };
    assert_eq!((url, reference, path), ("https://x/y.git", Reference::Branch("main"), "prod"));
    assert_eq!(interval, Duration::from_secs(90));
    let dir = run("run --dir ./a --once --listen off");
    assert!(
        matches!(dir.source.choose(), Ok(SourceChoice::Dir { dir, .. }) if dir == Path::new("./a"))
    );
    assert!(dir.once && dir.listen == Listen::Off);

    for (words, says) in [
        ("run --git u --dir d", "--git cannot be used together with --dir"),
        ("run --dir d --kubernetes", "--dir cannot be used together with --kubernetes"),
        ("plan --git u --branch b --tag t", "--branch cannot be used together with --tag"),
        ("plan --dir d --branch b", "--branch cannot be used together with --dir"),
        ("plan --dir d --git-ssh-key k", "--git-ssh-key cannot be used together with --dir"),
        ("run --git u --interval 5", "a time as 30s"),
        ("run --git u --interval 5ms", "at least 1s"),
        ("run --git u --owner A_B", "lower-case"),
        ("run --listen 7070", "127.0.0.1:7070"),
        ("run --git u --git-password-file f", "--git-username"),
        ("status Web", "lower-case"),
        ("check", "PATH"),
        ("chekc x", "check"),
        ("run --brnach u", "--branch"),
        ("import", "marathon"),
        ("import marathon", "FILE|URL"),
        ("import marathon a --group shop", "/shop"),
        ("import marathon a --group /Shop", "/shop"),
        ("import marathon a --fleet A_B", "lower-case"),
        ("import marathon a --username u", "--password-file"),
        ("import marathon a --token-file t --username u --password-file p", "cannot be used with"),
        ("import compose a b", "unexpected argument 'b'"),
    ] {
        let said = read(words).unwrap_err();
        assert!(said.contains(says), "{words}: {said}");
    }
    let none = run("run").source.choose().unwrap_err();
    assert!(none.message.contains("no source") && none.hint.unwrap().contains("--dir"));
    let kube = run("run --kubernetes --namespaces a,b").source;
    assert!(kube.kubernetes && kube.documents().unwrap().is_none());
    assert_eq!(kube.namespaces, ["a", "b"]);
    let both = run("run --kubernetes --git url --branch b").source;
    assert!(both.kubernetes && matches!(both.documents(), Ok(Some(SourceChoice::Git { .. }))));
}

#[test]
fn durations_are_read_as_they_are_written() {
    for (text, ms) in [("30s", 30_000), ("1h30m", 5_400_000), ("500ms", 500), ("0s", 0)] {
        assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
    }
    for wrong in ["", "5", "s", "5d", "-5s", "1h 5m", "99999999999999999999s", "9999999999999999h"]
    {
        assert!(duration(wrong).is_err(), "{wrong:?} was taken");
    }
}

fn with_file(text: &str, words: &str) -> Result<Cli, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, text).unwrap();
    read(&format!("{words} --config {}", file.display()))
        .map_err(|e| e.replace(&*dir.path().to_string_lossy(), ""))
}

const FILE: &str = "git: https://x/y.git
branch: main
interval: 5m
owner: shop
once: true
listen: 0.0.0.0:7070
log: debug
log-format: json
";

#[test]
fn the_file_fills_in_what_the_flags_leave_open() {
    let cli = with_file(FILE, "run --interval 7s").unwrap();
    assert_eq!(
        (cli.global.log.as_deref(), cli.global.log_format),
        (Some("debug"), LogFormat::Json)
    );
    let Command::Run(args) = cli.command else { panic!() };
    assert_eq!(args.source.git.as_deref(), Some("https://x/y.git"));
    assert_eq!(args.source.interval, Duration::from_secs(7), "the flag wins");
    assert_eq!(args.agent.owner.unwrap().as_str(), "shop");
    assert!(args.once && args.listen == Listen::At("0.0.0.0:7070".parse().unwrap()));

    // `plan` reads the same file and has no --listen: nothing to complain about.
    let Command::Plan(plan) = with_file(FILE, "plan --tag v1").unwrap().command else { panic!() };
    let choice = plan.source.choose().unwrap();
    assert!(matches!(choice, SourceChoice::Git { reference: Reference::Tag("v1"), .. }));
    let Command::Plan(plan) = with_file(FILE, "plan --dir .").unwrap().command else { panic!() };
    assert!(matches!(plan.source.choose(), Ok(SourceChoice::Dir { .. })), "{plan:?}");
    assert!(plan.source.git.is_none() && plan.source.branch.is_none());
    assert!(with_file("", "run --dir .").is_ok());
}

#[test]
fn what_is_wrong_in_the_file_is_said_with_its_place() {
    let e = with_file("intervall: 5m\ndir: .\nonse: true\n", "run").unwrap_err();
    assert!(
        e.contains("/config.yaml:1:1: unknown setting \"intervall\"; did you mean \"interval\"?"),
        "{e}"
    );
    assert!(e.contains(":3:1: unknown setting \"onse\"; did you mean \"once\"?"), "{e}");
    let e = with_file("config: other\n", "run").unwrap_err();
    assert!(e.contains("unknown setting \"config\""), "{e}");
    let e = with_file("git: [a, b]\n", "run").unwrap_err();
    assert!(e.contains("takes one plain value"), "{e}");
    let e = with_file("interval: soon\n", "run --dir .").unwrap_err();
    assert!(e.contains("configuration /config.yaml: invalid value 'soon'"), "{e}");
    let e = with_file("git: a\ndir: b\n", "run").unwrap_err();
    assert!(e.contains("git cannot be used together with dir"), "{e}");
    let e = with_file("a: [\n", "run").unwrap_err();
    assert!(e.contains("/config.yaml:"), "{e}");
    let e = read("run --dir . --config /nowhere/at/all.yaml").unwrap_err();
    assert!(e.contains("/nowhere/at/all.yaml"), "{e}");
}

#[test]
fn exit_codes_are_the_contract() {
    let steps =
        PlanView { steps: vec![crate::report::view::StepView::default()], ..PlanView::default() };
    let problem = [ProblemView::default()];
    assert_eq!(Exit::of_plan(&[], &[]), Exit::Fine);
    assert_eq!(Exit::of_plan(std::slice::from_ref(&steps), &[]), Exit::Steps);
    assert_eq!(Exit::of_plan(&[steps], &problem), Exit::Problem);
    assert_eq!((Exit::of_check(&[]), Exit::of_check(&problem)), (Exit::Fine, Exit::Problem));
}

#[test]
fn completions_are_written_for_every_shell() {
    use clap::ValueEnum;
    for shell in clap_complete::Shell::value_variants() {
        let mut out = Vec::new();
        let args = args::CompletionsArgs { shell: *shell };
        assert_eq!(completions(&args, &mut out).unwrap(), Reader::There);
        assert!(String::from_utf8(out).unwrap().contains("webhook-secret-file"), "{shell}");
    }
}

#[test]
fn problems_for_programs_are_one_document() {
    let term = Terminal { colour: false, interactive: false, width: 80, height: 24 };
    let mut out = Vec::new();
    let one = [ProblemView { path: "a.yaml".into(), ..ProblemView::default() }];
    let _ = print_problems(&one, Output::Json, term, &mut out).unwrap();
    let v: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(v["problems"][0]["path"], "a.yaml");
}

/// What a command that changes nothing prints.
fn printed(words: &str) -> (Exit, String) {
    let term = Terminal { colour: false, interactive: false, width: 100, height: 24 };
    let cli = read(words).unwrap_or_else(|e| panic!("{words}: {e}"));
    let mut out = Vec::new();
    let exit = match &cli.command {
        Command::Check(args) => offline::check(args, cli.global.output, term, &mut out),
        Command::Render(args) => offline::render(args, cli.global.output, term, &mut out),
        other @ (Command::Run(_)
        | Command::Plan(_)
        | Command::Import(_)
        | Command::Status(_)
        | Command::Crd(_)
        | Command::Schema(_)
        | Command::Completions(_)) => panic!("{other:?}"),
    };
    (exit.unwrap(), String::from_utf8(out).unwrap())
}

#[test]
fn render_shows_what_a_balancer_would_read_and_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let tls = "publish: 8181, certificates: [{name: site, key: tls}]";
    let text = include_str!("../source/parse/tests/traffic.yaml").replace("publish: 8181", tls);
    std::fs::write(dir.path().join("shop.yaml"), text).unwrap();
    let path = dir.path().display();
    let (exit, said) = printed(&format!("render {path}"));
    assert_eq!(exit, Exit::Fine);
    for part in [
        "\"Image\": \"haproxy:3.2\"",
        "# haproxy.cfg of edge\n",
        "    bind :80 ssl crt-list /etc/evenkeel/certificates/",
        "backend web.8080.cookie-CART\n",
        "# nginx.conf of inner\n",
        "server_name *.web.internal;",
        "# no server is known here",
    ] {
        assert!(said.contains(part), "{part}:\n{said}");
    }
    assert!(!said.contains("(secret site/tls)"), "{said}");
    let (_, one) = printed(&format!("render {path} --service inner -o json"));
    let one: serde_json::Value = serde_json::from_str(&one).unwrap();
    let keys: Vec<&String> = one.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["inner/nginx.conf", "inner_1"]);
}

#[test]
fn check_judges_certificates_where_it_is_shown_them() {
    let dir = tempfile::tempdir().unwrap();
    let spec = "provider: {haproxy: {}}, listeners: [{name: x, port: 443, certificates: [{name: site, key: tls}]}]";
    let text = format!(
        "apiVersion: evenkeel.dev/v1alpha1\nkind: LoadBalancer\nmetadata: {{name: edge}}\nspec: {{{spec}}}\n"
    );
    std::fs::write(dir.path().join("edge.yaml"), text).unwrap();
    let path = dir.path().display();
    assert_eq!(printed(&format!("check {path}")).0, Exit::Fine);
    let secrets = dir.path().join("secrets/site");
    std::fs::create_dir_all(&secrets).unwrap();
    std::fs::write(secrets.join("tls"), "not a certificate").unwrap();
    let (exit, said) = printed(&format!("check {path}/edge.yaml --secrets {path}/secrets"));
    assert_eq!(exit, Exit::Problem);
    let told = "edge.yaml:4:81: LoadBalancer edge: spec.listeners[0].certificates[0]: the secret site/tls has no certificate in it";
    assert!(said.contains(told) && !said.contains("not a certificate"), "{said}");
}
