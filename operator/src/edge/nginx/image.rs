//! What the nginx of an image can do, as it says itself.

use std::path::Path;

use crate::model::{External, Socket};

/// What the renderer must know of the program and its container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// nginx's version.
    pub version: (u32, u32, u32),
    /// Whether it passes on plain connections.
    pub stream: Stream,
    /// Whether it speaks HTTP/2 to clients.
    pub http2: bool,
    /// The container's host name: what its access log is called.
    pub hostname: String,
    /// What somebody else has configured around ours; `None` in a container of ours.
    pub beside: Option<Surroundings>,
}

/// The configuration of somebody else that includes ours, in its `http` block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// The first line of ours.
    pub header: String,
    /// Where ours is.
    pub file: String,
    /// The address where nginx answers what is in force.
    pub asked: String,
}

impl Surroundings {
    /// As a document and whose it is say it.
    pub fn of(external: &External, header: &str) -> Self {
        let file = external.file.as_ref().map_or_else(String::new, |f| f.path.clone());
        let asked = match &external.asked {
            Socket::Unix(path) => format!("unix:{path}"),
            Socket::Tcp(at) => at.clone(),
        };
        Self { header: header.to_owned(), file, asked }
    }
}

/// Where nginx has what TCP listeners need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stream {
    /// Nowhere.
    Missing,
    /// In the program.
    Built,
    /// In a module of its own, at this path.
    Module(String),
}

/// What is known where no container can be asked: nginx as it is published, in a container of no name.
impl Default for Image {
    fn default() -> Self {
        Self {
            version: (1, 28, 0),
            stream: Stream::Built,
            http2: true,
            hostname: "nginx".to_owned(),
            beside: None,
        }
    }
}

impl Image {
    /// Reads what `nginx -V` says, then `module PATH` for each module there is, then `host NAME`. `None` if that is
    /// no nginx.
    pub fn parse(text: &str) -> Option<Self> {
        let mut version = None;
        let mut modules = Vec::new();
        let mut options = "";
        let mut hostname = "nginx";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("nginx version: ") {
                version = rest.split_once('/').and_then(|(_, number)| parse_version(number));
            } else if let Some(rest) = line.strip_prefix("configure arguments:") {
                options = rest;
            } else if let Some(path) = line.strip_prefix("module ") {
                modules.push(path);
            } else if let Some(name) = line.strip_prefix("host ") {
                // It becomes a file's name.
                if is_file_name(name) {
                    hostname = name;
                }
            }
        }
        let has = |option: &str| options.split_whitespace().any(|word| word == option);
        let module = modules.iter().find(|path| is_stream(path));
        let stream = match module {
            _ if has("--with-stream") => Stream::Built,
            Some(path) => Stream::Module((*path).to_owned()),
            None => Stream::Missing,
        };
        let http2 = has("--with-http_v2_module");
        Some(Self { version: version?, stream, http2, hostname: hostname.to_owned(), beside: None })
    }

    /// One that somebody else runs, with what it has `told`: `version NUMBER` where something of ours is in force.
    /// Until then nothing is used that only newer ones have. It includes ours in `http`, so that there is no `stream`.
    pub fn beside(surroundings: Surroundings, told: Option<&str>) -> Self {
        let mut lines = told.unwrap_or_default().lines();
        let version = lines.find_map(|line| parse_version(line.strip_prefix("version ")?));
        Self {
            version: version.unwrap_or((1, 18, 0)),
            stream: Stream::Missing,
            http2: true,
            hostname: "nginx".to_owned(),
            beside: Some(surroundings),
        }
    }
}

fn is_stream(path: &str) -> bool {
    Path::new(path).file_name().is_some_and(|name| name == "ngx_stream_module.so")
        && super::token::plain(path)
}

fn is_file_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.len() <= 128
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// `1.22.1`, with whatever a distribution adds after it.
fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let number = text.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    let mut parts = number.split('.').map(str::parse);
    let mut next = || parts.next()?.ok();
    Some((next()?, next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_of_its_own_is_as_good_as_one_built_in() {
        let debian = "nginx version: nginx/1.22.1\nbuilt with OpenSSL 3\n\
            configure arguments: --with-cc-opt='-g -O2' --with-http_v2_module --with-stream=dynamic\n\
            module /usr/lib/nginx/modules/ngx_http_echo_module.so\n";
        let bare = Image::parse(debian).unwrap();
        assert_eq!((bare.version, bare.http2), ((1, 22, 1), true));
        assert_eq!(bare.stream, Stream::Missing);
        let path = "/usr/lib/nginx/modules/ngx_stream_module.so";
        let image = Image::parse(&format!("{debian}module {path}\nhost 0123abc\n")).unwrap();
        assert_eq!(image.stream, Stream::Module(path.into()));
        assert_eq!(image.hostname, "0123abc");
        let official =
            "nginx version: nginx/1.28.0 (Ubuntu)\nconfigure arguments: --with-stream --x\n";
        let image = Image::parse(official).unwrap();
        assert_eq!((image.stream, image.http2), (Stream::Built, false));
    }

    #[test]
    fn what_is_no_nginx_or_no_file_name_is_not_taken() {
        assert_eq!(Image::parse("sh: nginx: not found\n"), None);
        assert_eq!(Image::parse("nginx version: nginx/x\n"), None);
        let image = Image::parse("nginx version: openresty/1.21.4.1\nhost ../../etc\n").unwrap();
        assert_eq!((image.version, image.hostname.as_str()), ((1, 21, 4), "nginx"));
    }
}
