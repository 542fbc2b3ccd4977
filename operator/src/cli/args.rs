//! The command line as it is typed. What it means is settled in [`super::read`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::import::ImportArgs;
use super::stand::LockAddress;
use crate::model::{OwnerId, ServiceName};
use crate::telemetry::LogFormat;

/// Where an agent listens and where it is looked for.
pub const LISTEN: &str = "127.0.0.1:7070";

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default())
    .placeholder(AnsiColor::Cyan.on_default().dimmed());

/// Keeps containers on an even keel: makes Docker hosts match what is written in git.
#[derive(Debug, Parser)]
#[command(
    name = "evenkeel",
    version,
    styles = STYLES,
    disable_help_subcommand = true,
    after_help = "Examples:
  evenkeel plan --dir ./gitops-example      what would be done, and nothing is changed
  evenkeel run --git https://git.example/shop.git --branch main
  evenkeel status --watch"
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub struct GlobalArgs {
    /// How results are written: text, json or yaml
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        hide_possible_values = true,
        default_value = "text",
        value_name = "FORMAT",
        env = "EVENKEEL_OUTPUT",
        hide_env_values = true
    )]
    pub output: Output,
    /// Whether to use colour: auto (on a terminal; honours `NO_COLOR`), always or never
    #[arg(
        long,
        global = true,
        value_enum,
        hide_possible_values = true,
        default_value = "auto",
        value_name = "WHEN",
        env = "EVENKEEL_COLOR",
        hide_env_values = true
    )]
    pub color: When,
    /// What is logged: a level, or directives as evenkeel=debug [default: info for run, else warn]
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        env = "EVENKEEL_LOG",
        hide_env_values = true
    )]
    pub log: Option<String>,
    /// How the log on standard error looks: text or json
    #[arg(
        long,
        global = true,
        value_enum,
        hide_possible_values = true,
        default_value = "text",
        value_name = "FORMAT",
        env = "EVENKEEL_LOG_FORMAT",
        hide_env_values = true
    )]
    pub log_format: LogFormat,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// For both.
    Yaml,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum When {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the hosts match the source, and keep them so
    Run(Box<RunArgs>),
    /// Say what would be done, where and why; nothing is changed
    Plan(Box<PlanArgs>),
    /// Find every problem in documents at once
    Check(CheckArgs),
    /// Print the configuration that documents lead to
    Render(RenderArgs),
    /// Write documents for what Marathon or docker compose runs
    Import(ImportArgs),
    /// Say what runs, what is waited for and what was done lately
    Status(StatusArgs),
    /// Print the Kubernetes custom resource definitions
    Crd(CrdArgs),
    /// Print the JSON Schema of the documents, for editors
    Schema(SchemaArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// Where the documents come from.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Source (--git, --dir, --kubernetes, or --git with --kubernetes)")]
pub struct SourceArgs {
    /// A git repository: https://, ssh://, user@host:path or a path
    #[arg(long, value_name = "URL", env = "EVENKEEL_GIT", hide_env_values = true)]
    pub git: Option<String>,
    /// The branch to follow [default: the server's default branch]
    #[arg(long, value_name = "NAME", env = "EVENKEEL_BRANCH", hide_env_values = true)]
    pub branch: Option<String>,
    /// The tag to follow
    #[arg(long, value_name = "NAME", env = "EVENKEEL_TAG", hide_env_values = true)]
    pub tag: Option<String>,
    /// The one commit to use, all 40 digits
    #[arg(long, value_name = "ID", env = "EVENKEEL_COMMIT", hide_env_values = true)]
    pub commit: Option<String>,
    /// The directory inside the repository whose documents count
    #[arg(long, value_name = "PATH", env = "EVENKEEL_PATH", hide_env_values = true)]
    pub path: Option<String>,
    /// How often to look for something new, as 30s or 5m
    #[arg(
        long, value_name = "TIME", default_value = "30s", value_parser = interval,
        env = "EVENKEEL_INTERVAL", hide_env_values = true
    )]
    pub interval: Duration,
    /// A directory of documents on this machine
    #[arg(long, value_name = "PATH", env = "EVENKEEL_DIR", hide_env_values = true)]
    pub dir: Option<PathBuf>,
    /// Custom resources of a Kubernetes cluster
    #[arg(long, env = "EVENKEEL_KUBERNETES", hide_env_values = true)]
    pub kubernetes: bool,
    /// Namespaces to watch with --kubernetes, separated by commas [default: all]
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        requires = "kubernetes",
        env = "EVENKEEL_NAMESPACES",
        hide_env_values = true
    )]
    pub namespaces: Vec<String>,
    /// How to sign in to git.
    #[command(flatten)]
    pub auth: GitAuthArgs,
}

/// How to sign in to git. What is secret comes from files only: arguments are seen by everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Signing in to git")]
pub struct GitAuthArgs {
    /// File with an access token for https; read anew at every fetch
    #[arg(long, value_name = "FILE", env = "EVENKEEL_GIT_TOKEN_FILE", hide_env_values = true)]
    pub git_token_file: Option<PathBuf>,
    /// User name for https, where the server wants a certain one
    #[arg(long, value_name = "NAME", env = "EVENKEEL_GIT_USERNAME", hide_env_values = true)]
    pub git_username: Option<String>,
    /// File with a password for https
    #[arg(
        long,
        value_name = "FILE",
        requires = "git_username",
        env = "EVENKEEL_GIT_PASSWORD_FILE",
        hide_env_values = true
    )]
    pub git_password_file: Option<PathBuf>,
    /// Private key for ssh
    #[arg(long, value_name = "FILE", env = "EVENKEEL_GIT_SSH_KEY", hide_env_values = true)]
    pub git_ssh_key: Option<PathBuf>,
    /// File with the passphrase of that key
    #[arg(
        long,
        value_name = "FILE",
        requires = "git_ssh_key",
        env = "EVENKEEL_GIT_SSH_PASSPHRASE_FILE",
        hide_env_values = true
    )]
    pub git_ssh_passphrase_file: Option<PathBuf>,
    /// File with the ssh servers to trust [default: `~/.ssh/known_hosts`]
    #[arg(long, value_name = "FILE", env = "EVENKEEL_GIT_KNOWN_HOSTS", hide_env_values = true)]
    pub git_known_hosts: Option<PathBuf>,
    /// File with certificates to trust for https, beside the system's
    #[arg(long, value_name = "FILE", env = "EVENKEEL_GIT_CA_FILE", hide_env_values = true)]
    pub git_ca_file: Option<PathBuf>,
}

/// What an agent and its dry run have in common.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Agent")]
pub struct AgentArgs {
    /// The installation: containers of another owner are never touched [default: from the source]
    #[arg(
        long, value_name = "ID", value_parser = owner,
        env = "EVENKEEL_OWNER", hide_env_values = true
    )]
    pub owner: Option<OwnerId>,
    /// Where the last good state is kept [default: /var/lib/evenkeel, or ~/.local/state/evenkeel]
    #[arg(long, value_name = "DIR", env = "EVENKEEL_STATE_DIR", hide_env_values = true)]
    pub state_dir: Option<PathBuf>,
    /// Directory of secrets: `<DIR>/<name>/<key>` holds one value
    #[arg(long, value_name = "DIR", env = "EVENKEEL_SECRETS", hide_env_values = true)]
    pub secrets: Option<PathBuf>,
    /// YAML file with the same names as these flags; flags and environment win
    #[arg(long, value_name = "FILE", env = "EVENKEEL_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
}

/// `evenkeel run`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  evenkeel run --git https://git.example/shop.git --branch main --path production
  evenkeel run --dir ./gitops-example --once
  evenkeel run --config /etc/evenkeel/config.yaml")]
pub struct RunArgs {
    /// Where the documents come from.
    #[command(flatten)]
    pub source: SourceArgs,
    /// What an agent has.
    #[command(flatten)]
    pub agent: AgentArgs,
    /// Stop as soon as everything is as desired, or only a person can help
    #[arg(long, env = "EVENKEEL_ONCE", hide_env_values = true, help_heading = "Agent")]
    pub once: bool,
    /// Where the API listens; off for nowhere
    #[arg(
        long, value_name = "ADDRESS", default_value = LISTEN, value_parser = listen,
        env = "EVENKEEL_LISTEN", hide_env_values = true, help_heading = "Agent"
    )]
    pub listen: Listen,
    /// The lease that one of several replicas holds with --kubernetes, in the pod's own namespace or as NAMESPACE/NAME; off for the only one,
    /// which then heals what runs also while the API server is away
    #[arg(
        long, value_name = "NAME", default_value = crate::kubernetes::lease::NAME,
        env = "EVENKEEL_LEASE", hide_env_values = true, help_heading = "Agent"
    )]
    pub lease: String,
    /// A lock for agents that stand by for each other without Kubernetes.
    #[command(flatten)]
    pub lock: LockArgs,
    /// File with the secret that webhooks are signed with
    #[arg(
        long,
        value_name = "FILE",
        env = "EVENKEEL_WEBHOOK_SECRET_FILE",
        hide_env_values = true,
        help_heading = "Agent"
    )]
    pub webhook_secret_file: Option<PathBuf>,
}

/// How agents on several machines stand by for each other without Kubernetes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Standing by")]
pub struct LockArgs {
    /// A lock in Consul that one of several agents of an owner holds: `consul://HOST:PORT`, or `consuls://` over TLS, with
    /// `/KEY` behind it for a key of your own [default key: evenkeel/OWNER/lock]
    #[arg(
        long, value_name = "URL", value_parser = super::stand::lock,
        conflicts_with = "kubernetes", env = "EVENKEEL_LOCK", hide_env_values = true
    )]
    pub lock: Option<LockAddress>,
    /// File with the ACL token for the lock; read anew at every call
    #[arg(
        long,
        value_name = "FILE",
        requires = "lock",
        env = "EVENKEEL_LOCK_TOKEN_FILE",
        hide_env_values = true
    )]
    pub lock_token_file: Option<PathBuf>,
    /// File with certificates to trust for consuls:// [default: the system's]
    #[arg(
        long,
        value_name = "FILE",
        requires = "lock",
        env = "EVENKEEL_LOCK_CA_FILE",
        hide_env_values = true
    )]
    pub lock_ca_file: Option<PathBuf>,
    /// File with this agent's certificate for consuls://
    #[arg(
        long, value_name = "FILE", requires_all = ["lock", "lock_key_file"],
        env = "EVENKEEL_LOCK_CERT_FILE", hide_env_values = true
    )]
    pub lock_cert_file: Option<PathBuf>,
    /// File with the private key of that certificate
    #[arg(
        long,
        value_name = "FILE",
        requires = "lock_cert_file",
        env = "EVENKEEL_LOCK_KEY_FILE",
        hide_env_values = true
    )]
    pub lock_key_file: Option<PathBuf>,
}

/// `evenkeel plan`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Exit code: 0 nothing to do, 2 steps to take, 1 a problem.

Examples:
  evenkeel plan --dir ./gitops-example
  evenkeel plan --git https://git.example/shop.git --branch next -o json
  echo 'crash web/1' | evenkeel plan --demo")]
pub struct PlanArgs {
    /// Where the documents come from.
    #[command(flatten)]
    pub source: SourceArgs,
    /// What an agent has.
    #[command(flatten)]
    pub agent: AgentArgs,
    /// Ask "what if" in a simulated world: type what happens, read what would be done
    #[arg(long, env = "EVENKEEL_DEMO", hide_env_values = true)]
    pub demo: bool,
}

/// `evenkeel check`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Exit code: 0 no problem, 1 problems, each as path:line:column: message.

Example:
  evenkeel check gitops-example/ other/web.yaml
  evenkeel check gitops-example/ --secrets /etc/evenkeel/secrets")]
pub struct CheckArgs {
    /// Files and directories; each directory is checked as one source
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Directory of secrets, to check that they are there and certificates load; without it both are taken for granted
    #[arg(long, value_name = "DIR")]
    pub secrets: Option<PathBuf>,
}

/// `evenkeel render`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  evenkeel render gitops-example/
  evenkeel render gitops-example/ --service web -o json")]
pub struct RenderArgs {
    /// A file, or a directory as one source
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Only this service or balancer
    #[arg(long, value_name = "NAME", value_parser = service)]
    pub service: Option<ServiceName>,
}

/// `evenkeel status`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "AGE is the time a service has been in its present status.

Examples:
  evenkeel status
  evenkeel status web --watch
  evenkeel status -o json --agent http://10.77.0.11:7070")]
pub struct StatusArgs {
    /// Only this service, in detail
    #[arg(value_parser = service)]
    pub service: Option<ServiceName>,
    /// Go on: redraw on a terminal, else print a line for each change
    #[arg(short, long)]
    pub watch: bool,
    /// Where the agent listens
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:7070",
        env = "EVENKEEL_AGENT",
        hide_env_values = true
    )]
    pub agent: String,
}

/// `evenkeel crd`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:
  evenkeel crd | kubectl apply --server-side -f -")]
pub struct CrdArgs {}

/// `evenkeel schema`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:
  evenkeel schema ScalingService > scalingservice.schema.json")]
pub struct SchemaArgs {
    /// `Fleet`, `LoadBalancer` or `ScalingService` [default: a schema for any of them]
    pub kind: Option<String>,
}

/// `evenkeel completions`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:
  evenkeel completions bash > /etc/bash_completion.d/evenkeel")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Where the API listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// There.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

fn listen(s: &str) -> Result<Listen, String> {
    if s == "off" {
        return Ok(Listen::Off);
    }
    let why = |_| "an address and a port, as 127.0.0.1:7070 or [::1]:7070, or off".to_owned();
    s.parse().map(Listen::At).map_err(why)
}

fn owner(s: &str) -> Result<OwnerId, String> {
    OwnerId::new(s).map_err(|e| e.why.to_owned())
}

fn service(s: &str) -> Result<ServiceName, String> {
    ServiceName::new(s).map_err(|e| e.why.to_owned())
}

fn interval(s: &str) -> Result<Duration, String> {
    let d = duration(s)?;
    if d < Duration::from_secs(1) {
        return Err("at least 1s".into());
    }
    Ok(d)
}

/// Reads a duration as people write it: `1h30m`, `30s`, `500ms`.
pub fn duration(s: &str) -> Result<Duration, String> {
    let wrong = || "a time as 30s, 5m, 1h30m or 500ms".to_owned();
    let mut rest = s;
    let mut millis: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, tail) = tail.split_at(letters);
        let of = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let n: u64 = number.parse().map_err(|_| wrong())?;
        millis = n.checked_mul(of).and_then(|n| millis.checked_add(n)).ok_or_else(wrong)?;
        rest = tail;
    }
    if s.is_empty() { Err(wrong()) } else { Ok(Duration::from_millis(millis)) }
}
