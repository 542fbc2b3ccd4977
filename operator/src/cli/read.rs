//! From words to a command: flags win over the environment, and that over the configuration file.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use super::CliError;
use super::args::{Cli, Command, GitAuthArgs, SourceArgs};

/// Of these only one may be meant.
const SOURCES: [&str; 3] = ["git", "dir", "kubernetes"];
/// And of these, which mean something with `--git` only.
const REFERENCES: [&str; 3] = ["branch", "tag", "commit"];
/// Commands that take a configuration file.
const CONFIGURED: [&str; 2] = ["run", "plan"];

/// Why there is no command.
#[derive(Debug)]
pub enum ReadError {
    /// The words are wrong, or help or the version was asked for.
    Words(clap::Error),
    /// The configuration file is wrong.
    Other(CliError),
}

impl From<CliError> for ReadError {
    fn from(e: CliError) -> Self {
        Self::Other(e)
    }
}

impl From<clap::Error> for ReadError {
    fn from(e: clap::Error) -> Self {
        Self::Words(e)
    }
}

impl Cli {
    /// Reads the words of a command line, and the configuration file that they name.
    pub fn read(words: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Self, ReadError> {
        let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
        let command = Self::command();
        let mut matches = command.clone().try_get_matches_from(&words)?;
        if let Some((name, sub)) = matches.subcommand()
            && CONFIGURED.contains(&name)
            && let Some(file) = sub.get_one::<PathBuf>("config")
        {
            let text = std::fs::read_to_string(file).map_err(|e| {
                CliError::new(format!("read configuration {}: {e}", file.display()))
            })?;
            let entries = entries(file, &text, &command)?;
            let with_file = defaults(command.clone(), name, &entries);
            matches = with_file.try_get_matches_from(&words).map_err(|e| {
                // The words alone were fine, so what is wrong stands in the file.
                let said = e.to_string();
                let said = said.lines().next().unwrap_or_default().trim_start_matches("error: ");
                CliError::new(format!("configuration {}: {said}", file.display()))
            })?;
        }
        let chosen = match matches.subcommand() {
            Some((name, sub)) if CONFIGURED.contains(&name) => {
                let sources = sources(&command, sub)?;
                let reference = one_of(&command, sub, &REFERENCES)?;
                if let Some(other) = sources.first().filter(|_| !sources.contains(&"git")) {
                    only_with_git(&command, sub, other)?;
                }
                Some((sources, reference))
            }
            _ => None,
        };
        let mut cli = Self::from_arg_matches(&matches)?;
        if let Some((sources, reference)) = chosen {
            match &mut cli.command {
                Command::Run(args) => args.source.keep(&sources, reference),
                Command::Plan(args) => args.source.keep(&sources, reference),
                Command::Check(_)
                | Command::Render(_)
                | Command::Status(_)
                | Command::Crd(_)
                | Command::Schema(_)
                | Command::Import(_)
                | Command::Completions(_) => {}
            }
        }
        Ok(cli)
    }
}

/// Whoever spoke nearer wins.
fn rank(m: &ArgMatches, id: &str) -> u8 {
    let unset = id == "kubernetes" && !m.get_flag(id);
    match m.value_source(id) {
        _ if unset => 0,
        Some(ValueSource::CommandLine) => 3,
        Some(ValueSource::EnvVariable) => 2,
        Some(_) => 1,
        None => 0,
    }
}

/// The sources that are meant: one, or git and Kubernetes together where the same says both.
fn sources(command: &clap::Command, m: &ArgMatches) -> Result<Vec<&'static str>, ReadError> {
    let both = ["git", "kubernetes"];
    let top = SOURCES.iter().map(|id| rank(m, id)).max().unwrap_or(0);
    if top > 0 && both.iter().all(|id| rank(m, id) == top) && rank(m, "dir") < top {
        return Ok(both.into());
    }
    Ok(one_of(command, m, &SOURCES)?.into_iter().collect())
}

/// The one of a group that is meant, or an error when two are said by the same.
fn one_of(
    command: &clap::Command,
    m: &ArgMatches,
    group: &[&'static str],
) -> Result<Option<&'static str>, ReadError> {
    let top = group.iter().map(|id| rank(m, id)).max().unwrap_or(0);
    let said: Vec<&'static str> =
        group.iter().copied().filter(|id| top > 0 && rank(m, id) == top).collect();
    match said[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        [a, b, ..] => {
            let (a, b) = match top {
                2 => (env_name(a), env_name(b)),
                1 => (a.to_owned(), b.to_owned()),
                _ => (format!("--{a}"), format!("--{b}")),
            };
            Err(conflict(command, &a, &b))
        }
    }
}

fn env_name(id: &str) -> String {
    format!("EVENKEEL_{}", id.to_uppercase())
}

fn conflict(command: &clap::Command, a: &str, b: &str) -> ReadError {
    let text = format!("{a} cannot be used together with {b}: they mean different sources\n");
    command.clone().error(ErrorKind::ArgumentConflict, text).into()
}

/// A flag for git on the command line, where the source is another one, is a mistake. One in the
/// environment or the file is not: that is how a directory is tried with the usual configuration.
fn only_with_git(command: &clap::Command, m: &ArgMatches, source: &str) -> Result<(), ReadError> {
    let ids = m.ids().map(|id| id.as_str().to_owned());
    let of_git =
        |id: &String| REFERENCES.contains(&id.as_str()) || id.starts_with("git_") || id == "path";
    // `ids` also holds the ids of groups, which have no value source of their own.
    let said = ids.filter(of_git).find(|id| m.value_source(id) == Some(ValueSource::CommandLine));
    match said {
        Some(id) => {
            Err(conflict(command, &format!("--{}", id.replace('_', "-")), &format!("--{source}")))
        }
        None => Ok(()),
    }
}

impl SourceArgs {
    /// Forgets what was said by those who do not win.
    fn keep(&mut self, sources: &[&str], reference: Option<&str>) {
        let other = |id: &str, kept: Option<&str>| kept != Some(id);
        if !sources.contains(&"git") {
            self.git = None;
            self.path = None;
            self.auth = GitAuthArgs::default();
        }
        if !sources.contains(&"dir") {
            self.dir = None;
        }
        self.kubernetes &= sources.contains(&"kubernetes");
        if !self.kubernetes {
            self.namespaces.clear();
        }
        let reference = reference.filter(|_| sources.contains(&"git"));
        for (id, field) in
            REFERENCES.iter().zip([&mut self.branch, &mut self.tag, &mut self.commit])
        {
            if other(id, reference) {
                *field = None;
            }
        }
    }

    /// The documents that are meant beside custom resources, where there are any.
    pub fn documents(&self) -> Result<Option<SourceChoice<'_>>, CliError> {
        if self.kubernetes && self.git.is_none() { Ok(None) } else { self.choose().map(Some) }
    }

    /// The documents that are meant, or what is missing.
    pub fn choose(&self) -> Result<SourceChoice<'_>, CliError> {
        let interval = self.interval;
        if let Some(dir) = &self.dir {
            return Ok(SourceChoice::Dir { dir, interval });
        }
        let Some(url) = &self.git else {
            return Err(CliError::new("no source is given").hint(
                "give --git URL, --dir PATH or --kubernetes, for example --dir ./gitops-example",
            ));
        };
        let reference = match (&self.branch, &self.tag, &self.commit) {
            (Some(b), _, _) => Reference::Branch(b),
            (_, Some(t), _) => Reference::Tag(t),
            (_, _, Some(c)) => Reference::Commit(c),
            (None, None, None) => Reference::Head,
        };
        let path = self.path.as_deref().unwrap_or_default();
        Ok(SourceChoice::Git { url, reference, path, interval, auth: &self.auth })
    }
}

/// Where the documents come from, settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceChoice<'a> {
    /// A git repository.
    Git {
        /// Where it is.
        url: &'a str,
        /// What is followed.
        reference: Reference<'a>,
        /// The directory that counts; empty for all.
        path: &'a str,
        /// How often to look.
        interval: Duration,
        /// How to sign in.
        auth: &'a GitAuthArgs,
    },
    /// A directory.
    Dir {
        /// Where it is.
        dir: &'a Path,
        /// How often to look, beside being told of changes.
        interval: Duration,
    },
}

/// What of a repository is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference<'a> {
    /// The server's default branch.
    Head,
    /// A branch.
    Branch(&'a str),
    /// A tag.
    Tag(&'a str),
    /// One commit.
    Commit(&'a str),
}

type Entries = Vec<(String, Vec<String>)>;

/// Reads the file: a mapping from names of flags to values. All mistakes are said at once.
fn entries(file: &Path, text: &str, command: &clap::Command) -> Result<Entries, CliError> {
    let shown = file.display();
    let map: serde_yaml::Mapping = if text.trim().is_empty() {
        serde_yaml::Mapping::new()
    } else {
        serde_yaml::from_str(text).map_err(|e| {
            let at = e.location().map(|l| format!(":{}:{}", l.line(), l.column()));
            CliError::new(format!("{shown}{}: {e}", at.unwrap_or_default()))
                .hint("the file holds names of flags and their values, as `git: https://…`")
        })?
    };
    let known = known(command);
    let mut wrong = String::new();
    let mut out = Entries::new();
    for (key, value) in &map {
        let key = match key.as_str() {
            Some(s) => s.to_owned(),
            None => serde_yaml::to_string(key).unwrap_or_default().trim().to_owned(),
        };
        let line = text.lines().position(|l| l.starts_with(&key)).map_or(1, |n| n + 1);
        let place = format!("{shown}:{line}:1");
        if !known.contains(&key) {
            let near = known
                .iter()
                .map(|k| (strsim::jaro_winkler(k, &key), k))
                .filter(|(likeness, _)| *likeness > 0.7)
                .max_by(|a, b| a.0.total_cmp(&b.0));
            let near = near.map(|(_, k)| format!("; did you mean \"{k}\"?")).unwrap_or_default();
            let _ = writeln!(wrong, "{place}: unknown setting \"{key}\"{near}");
            continue;
        }
        match scalars(value) {
            Some(values) => out.push((key.replace('-', "_"), values)),
            None => {
                let _ = writeln!(wrong, "{place}: \"{key}\" takes one plain value");
            }
        }
    }
    if wrong.is_empty() { Ok(out) } else { Err(CliError::new(wrong.trim_end())) }
}

fn scalars(v: &serde_yaml::Value) -> Option<Vec<String>> {
    match v {
        serde_yaml::Value::String(s) => Some(vec![s.clone()]),
        serde_yaml::Value::Number(n) => Some(vec![n.to_string()]),
        serde_yaml::Value::Bool(b) => Some(vec![b.to_string()]),
        serde_yaml::Value::Null
        | serde_yaml::Value::Sequence(_)
        | serde_yaml::Value::Mapping(_)
        | serde_yaml::Value::Tagged(_) => None,
    }
}

/// The names that a file may use: all long flags of the commands that read it, so that `run` and
/// `plan` share one file.
fn known(command: &clap::Command) -> Vec<String> {
    let subs = command.get_subcommands().filter(|s| CONFIGURED.contains(&s.get_name()));
    let args = subs.flat_map(clap::Command::get_arguments).chain(command.get_arguments());
    let mut names: Vec<String> = args
        .filter_map(clap::Arg::get_long)
        .filter(|n| !["config", "help", "version"].contains(n))
        .map(Into::into)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The command with the file's entries as defaults, which is just the precedence they have.
fn defaults(mut command: clap::Command, name: &str, entries: &Entries) -> clap::Command {
    let has = |c: &clap::Command, id: &str| c.get_arguments().any(|a| a.get_id() == id);
    for (id, values) in entries {
        let (id, values) = (id.clone(), values.clone());
        if has(&command, &id) {
            command = command.mut_arg(id, |a| a.default_values(values));
        } else if command.find_subcommand(name).is_some_and(|s| has(s, &id)) {
            command = command.mut_subcommand(name, |s| s.mut_arg(id, |a| a.default_values(values)));
        }
    }
    command
}
