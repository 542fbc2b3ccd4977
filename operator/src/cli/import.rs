//! `evenkeel import`: documents for what somebody else runs, and line by line what they do not say.
//!
//! It reads and writes files; what comes of them is decided in [`crate::import`]. Nothing that is there is written over.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use evenkeel_crds::{DEFAULT_FLEET, MarathonAuth, MarathonBackend};
use serde::Serialize;

use super::args::Output;
use super::output::{self, put};
use super::{CliError, Exit};
use crate::backend::marathon::dump;
use crate::error::causes;
use crate::import::compose::{self, env_file};
use crate::import::{Import, ImportError, lines, marathon};
use crate::model::{self, AppId, Credential, FleetName, MarathonSpec, OwnerId};
use crate::report::redact::clean;
use crate::source;
use crate::source::parse;

/// More than a file of apps ever has.
const LONGEST: u64 = 64 << 20;
/// More than a compose file or a file of variables ever has.
const LONGEST_COMPOSE: u64 = 1 << 20;

/// `evenkeel import`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Exit code: 0 all became documents, 2 something was left out, 1 an error.

Examples:
  evenkeel import marathon http://mm1:8080 --group /shop --to shop/
  evenkeel import compose docker-compose.yml --to shop.yaml")]
pub struct ImportArgs {
    /// What is imported.
    #[command(subcommand)]
    pub from: From,
}

/// What is imported.
#[derive(Debug, Clone, Subcommand)]
pub enum From {
    /// Apps of Marathon: each is claimed as it runs, and nothing restarts
    Marathon(MarathonArgs),
    /// Services of a compose file
    Compose(ComposeArgs),
}

/// `evenkeel import marathon`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Documents go to standard output or to --to, and what they do not say to standard error, a line each: fields
that are kept for Marathon and mean nothing on Docker hosts, and apps that are left out. With a URL or --urls a
Fleet document is written too. Planning these documents against that cluster changes nothing.

Exit code: 0 all apps became documents, 2 some were left out, 1 an error.

Examples:
  evenkeel import marathon http://mm1:8080 --urls http://mm2:8080 --group /shop --to shop/
  curl -s http://mm1:8080/v2/apps | evenkeel import marathon - --fleet mesos > apps.yaml"
)]
pub struct MarathonArgs {
    /// JSON of GET /v2/groups, GET /v2/apps, or of apps; - for standard input; or where Marathon is
    #[arg(value_name = "FILE|URL")]
    pub source: String,
    /// Only apps below this group, which is the group of the Fleet document
    #[arg(long, value_name = "PATH", default_value = "/", value_parser = group)]
    pub group: String,
    /// The fleet of the documents
    #[arg(long, value_name = "NAME", default_value = "marathon", value_parser = fleet)]
    pub fleet: String,
    /// More masters, separated by commas, for the Fleet document
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    pub urls: Vec<String>,
    /// The user, for basic authentication
    #[arg(long, value_name = "NAME", requires = "password_file")]
    pub username: Option<String>,
    /// File with that user's password
    #[arg(long, value_name = "FILE", requires = "username")]
    pub password_file: Option<PathBuf>,
    /// File with a token, as DC/OS has it
    #[arg(long, value_name = "FILE", conflicts_with = "username")]
    pub token_file: Option<PathBuf>,
    /// Where the documents go.
    #[command(flatten)]
    pub to: ToArgs,
}

/// `evenkeel import compose`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Documents go to standard output or to --to, and what they do not say to standard error, a line each. Variables
have the values that compose would give them: of the environment, then of --env-file, or of .env beside the file.

Exit code: 0 all services became documents, 2 some were left out, 1 an error.

Example:
  evenkeel import compose docker-compose.yml --to shop.yaml"
)]
pub struct ComposeArgs {
    /// The compose file; - for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The fleet of the documents
    #[arg(long, value_name = "NAME", default_value = DEFAULT_FLEET, value_parser = fleet)]
    pub fleet: String,
    /// File with values of variables; the last one counts [default: .env beside the file, if it is there]
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// What compose calls the project, which its volumes and networks begin with [default: the directory's name]
    #[arg(long, value_name = "NAME")]
    pub project: Option<String>,
    /// Where the documents go.
    #[command(flatten)]
    pub to: ToArgs,
}

/// Where documents go.
#[derive(Debug, Clone, Default, Args)]
pub struct ToArgs {
    /// A file for all documents, or a directory (with / at its end) for a file each [default: standard output]
    #[arg(long, value_name = "PATH")]
    pub to: Option<PathBuf>,
}

fn group(s: &str) -> Result<String, String> {
    // A group of a Fleet document takes no dots.
    let fits = s == "/" || (AppId::new(s).is_some() && !s.contains('.'));
    fits.then(|| s.to_owned()).ok_or_else(|| "the absolute path of a group, as /shop".to_owned())
}

fn fleet(s: &str) -> Result<String, String> {
    FleetName::new(s).map(|name| name.to_string()).map_err(|e| e.why.to_owned())
}

impl std::convert::From<ImportError> for CliError {
    fn from(e: ImportError) -> Self {
        Self { message: e.message, hint: e.hint }
    }
}

/// What programs are told.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    documents: Vec<ToldDocument<'a>>,
    notes: Vec<ToldNote<'a>>,
    left_out: Vec<ToldLeftOut<'a>>,
    remarks: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToldDocument<'a> {
    kind: &'a str,
    name: &'a str,
    subject: &'a str,
    text: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToldNote<'a> {
    subject: &'a str,
    field: &'a str,
    said: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    lost: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToldLeftOut<'a> {
    subject: &'a str,
    why: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

/// `evenkeel import`.
pub async fn run(
    args: &ImportArgs,
    output: Output,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, CliError> {
    let owner = OwnerId::new("import").map_err(|e| CliError::new(e.to_string()))?;
    let (import, to) = match &args.from {
        From::Marathon(args) => (of_marathon(args, &owner).await?, &args.to),
        From::Compose(args) => (of_compose(args, &owner)?, &args.to),
    };
    write(&import, to, output, out)?;
    report(&import, err)?;
    Ok(if import.left_out.is_empty() { Exit::Fine } else { Exit::LeftOut })
}

async fn of_marathon(args: &MarathonArgs, owner: &OwnerId) -> Result<Import, CliError> {
    let is_url = |s: &str| s.starts_with("http://") || s.starts_with("https://");
    let by_url = is_url(&args.source);
    let mut urls: Vec<String> = by_url.then(|| args.source.clone()).into_iter().collect();
    urls.extend(args.urls.iter().filter(|url| **url != args.source).cloned());
    for url in &urls {
        if url.contains('@') {
            return Err(CliError::new("a URL may not hold credentials")
                .hint("give --username and --password-file, or --token-file"));
        }
        if !is_url(url) {
            return Err(CliError::new(format!("{} is no URL of a Marathon", clean(url)))
                .hint("write it as http://mm1:8080"));
        }
    }
    let cluster = if urls.is_empty() { None } else { Some(backend(args, urls)?) };
    let value = match &cluster {
        Some(cluster) if by_url => {
            let spec = spoken_with(cluster);
            dump(&spec).await.map_err(|e| CliError::new(causes(&e)))?
        }
        _ => {
            let bytes = read(Path::new(&args.source), LONGEST)?;
            serde_json::from_slice(&bytes).map_err(|e| {
                let place = format!("line {}, column {}", e.line(), e.column());
                CliError::new(format!("{}: no JSON: {place}", args.source))
                    .hint("give what GET /v2/groups or GET /v2/apps answers")
            })?
        }
    };
    let (fleet, group) = (args.fleet.as_str(), args.group.as_str());
    Ok(marathon::import(&value, &marathon::Options { fleet, group, cluster, owner })?)
}

fn backend(args: &MarathonArgs, urls: Vec<String>) -> Result<MarathonBackend, CliError> {
    let absolute = |path: &Option<PathBuf>| path.as_ref().map(|path| whole(path)).transpose();
    let (password_file, token_file) = (absolute(&args.password_file)?, absolute(&args.token_file)?);
    let username = args.username.clone();
    let auth = (username.is_some() || token_file.is_some()).then_some(MarathonAuth {
        username,
        password_file,
        password_secret: None,
        token_file,
        token_secret: None,
    });
    let group = args.group.clone();
    Ok(MarathonBackend { urls, auth, group, registry_config: None, registrator: false })
}

fn spoken_with(cluster: &MarathonBackend) -> MarathonSpec {
    let MarathonBackend { urls, auth, group, registry_config, registrator } = cluster.clone();
    // The command line names files only.
    let auth = auth.and_then(|MarathonAuth { username, password_file, token_file, .. }| {
        let (password, token) =
            (password_file.map(Credential::File), token_file.map(Credential::File));
        match (username.zip(password), token) {
            (Some((username, password)), _) => {
                Some(model::MarathonAuth::Basic { username, password })
            }
            (None, Some(token)) => Some(model::MarathonAuth::Token { token }),
            (None, None) => None,
        }
    });
    MarathonSpec { urls, auth, group, registry_config, registrator }
}

fn of_compose(args: &ComposeArgs, owner: &OwnerId) -> Result<Import, CliError> {
    let stdin = is_stdin(&args.file);
    let file = if stdin {
        whole(Path::new(".")).map(PathBuf::from)?.join("-")
    } else {
        PathBuf::from(whole(&args.file)?)
    };
    let dir = file.parent().unwrap_or(Path::new("/"));
    let text = text(&args.file, read(&args.file, LONGEST_COMPOSE)?)?;
    let beside = dir.join(".env");
    let mut files: Vec<&Path> = args.env_file.iter().map(PathBuf::as_path).collect();
    let by_itself = files.is_empty() && !stdin && beside.is_file();
    if by_itself {
        files.push(&beside);
    }
    let of_process = |name: &str| std::env::var(name).ok();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut unset = Vec::new();
    for file in files {
        let content = self::text(file, read(file, LONGEST_COMPOSE)?)?;
        let lookup = |name: &str| of_process(name).or_else(|| values.get(name).cloned());
        let more = env_file::read(&content, &lookup, &mut unset);
        values.extend(more);
    }
    let lookup = |name: &str| of_process(name).or_else(|| values.get(name).cloned());
    let read_beside = |path: &str| -> Result<String, String> {
        let path = dir.join(path);
        let bytes =
            bounded(std::fs::File::open(&path).map_err(|e| e.to_string())?, LONGEST_COMPOSE)?;
        String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
    };
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let options = compose::Options {
        fleet: &args.fleet,
        project: args.project.as_deref().unwrap_or(&name),
        dir: &dir.to_string_lossy(),
        lookup: &lookup,
        read: &read_beside,
        owner,
    };
    let mut import = compose::import(&text, &options)?;
    if by_itself {
        import.remarks.push(
            "values of variables were taken from .env beside the file, as compose does".to_owned(),
        );
    }
    Ok(import)
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// A path from the root.
fn whole(path: &Path) -> Result<String, CliError> {
    let whole =
        std::path::absolute(path).map_err(|e| CliError::new(format!("{}: {e}", path.display())))?;
    let text = whole.to_str().map(str::to_owned);
    text.ok_or_else(|| CliError::new(format!("{}: the path is not UTF-8", path.display())))
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, CliError> {
    let failed = |why: String| CliError::new(format!("{}: {why}", path.display()));
    if is_stdin(path) {
        return bounded(std::io::stdin().lock(), most).map_err(failed);
    }
    let file = std::fs::File::open(path).map_err(|e| {
        failed(e.to_string()).hint("give a file that exists, or - for standard input")
    })?;
    bounded(file, most).map_err(failed)
}

fn bounded(from: impl Read, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let _ = from.take(most + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > most { Err(format!("more than {} MiB", most >> 20)) } else { Ok(bytes) }
}

fn text(path: &Path, bytes: Vec<u8>) -> Result<String, CliError> {
    String::from_utf8(bytes)
        .map_err(|_| CliError::new(format!("{}: it is not UTF-8", path.display())))
}

/// Writes the documents where they are to go, and the whole to programs that ask for it.
fn write(
    import: &Import,
    to: &ToArgs,
    output: Output,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    match &to.to {
        Some(path) if is_dir(path) => write_each(import, path)?,
        Some(path) => write_new(path, &one_file(import)?)?,
        None => {}
    }
    if output == Output::Text {
        if to.to.is_none() {
            let _ = put(out, &one_file(import)?)?;
        }
        return Ok(());
    }
    let documents = import.documents.iter().map(|d| ToldDocument {
        kind: d.kind,
        name: &d.name,
        subject: &d.subject,
        text: &d.text,
    });
    let notes = import.notes.iter().map(|n| ToldNote {
        subject: &n.subject,
        field: &n.field,
        said: &n.said,
        hint: n.hint.as_deref(),
        lost: n.lost,
    });
    let left_out = import.left_out.iter().map(|l| ToldLeftOut {
        subject: &l.subject,
        why: &l.why,
        hint: l.hint.as_deref(),
    });
    let told = Told {
        documents: documents.collect(),
        notes: notes.collect(),
        left_out: left_out.collect(),
        remarks: &import.remarks,
    };
    let _ = output::emit(out, output, &told, String::new)?;
    Ok(())
}

fn is_dir(path: &Path) -> bool {
    path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

/// All documents as one file that evenkeel reads.
fn one_file(import: &Import) -> Result<String, CliError> {
    let texts: Vec<&str> = import.documents.iter().map(|d| d.text.as_str()).collect();
    let text = texts.join("---\n");
    let most = parse::Limits::default().documents_per_file;
    let largest = source::Limits::default().max_file_bytes;
    if texts.len() > most || text.len() as u64 > largest {
        let message =
            format!("{} documents are more than evenkeel reads from one file", texts.len());
        return Err(CliError::new(message).hint("--to DIR/ writes a file for each"));
    }
    Ok(text)
}

fn write_each(import: &Import, dir: &Path) -> Result<(), CliError> {
    let failed = |e: std::io::Error| CliError::new(format!("{}: {e}", dir.display()));
    std::fs::create_dir_all(dir).map_err(failed)?;
    let files = import.documents.iter().map(|d| (dir.join(d.file()), &d.text));
    // All or nothing.
    if let Some((path, _)) = files.clone().find(|(path, _)| path.exists()) {
        return Err(taken(&path));
    }
    for (path, text) in files {
        write_new(&path, text)?;
    }
    Ok(())
}

fn write_new(path: &Path, text: &str) -> Result<(), CliError> {
    let failed = |e: std::io::Error| {
        let there = e.kind() == std::io::ErrorKind::AlreadyExists;
        if there { taken(path) } else { CliError::new(format!("{}: {e}", path.display())) }
    };
    let mut file = std::fs::File::create_new(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

fn taken(path: &Path) -> CliError {
    CliError::new(format!("{} is there already", path.display()))
        .hint("nothing is written over: name another place, or remove it")
}

/// Says line by line what was not carried over, and how it went.
fn report(import: &Import, err: &mut dyn Write) -> Result<(), CliError> {
    let mut text = String::new();
    for line in lines(import) {
        text.push_str(&clean(&line.text));
        text.push('\n');
        if let Some(hint) = &line.hint {
            text.push_str("  hint: ");
            text.push_str(&clean(hint));
            text.push('\n');
        }
    }
    let services = import.documents.iter().filter(|d| d.kind == "ScalingService").count();
    let left = import.left_out.len();
    let were = if services == 1 { "service was" } else { "services were" };
    let _ = writeln!(text, "{services} {were} written, {left} left out");
    let _ = put(err, &text)?;
    Ok(())
}
