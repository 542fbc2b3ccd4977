//! A tar archive (POSIX ustar), as little of it as an engine needs to write files into a container.

use bytes::Bytes;

use crate::edge::File;

const BLOCK: usize = 512;

/// Why files cannot be put.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path:?} is not an absolute path that fits an archive")]
pub struct BadPath {
    path: String,
}

/// Archives `files` for an upload to `/`, into a container that runs or one that is not started yet.
///
/// Directories are left to the engine, which makes those that are missing: an entry for one that exists would change
/// its permissions.
pub fn archive(files: &[File]) -> Result<Bytes, BadPath> {
    let mut bytes = Vec::new();
    for File { path, content, mode } in files {
        let header = header(path, *mode, content.len());
        bytes.extend_from_slice(&header.ok_or_else(|| BadPath { path: path.clone() })?);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    Ok(bytes.into())
}

fn header(path: &str, mode: u32, size: usize) -> Option<[u8; BLOCK]> {
    let name = path.strip_prefix('/')?;
    let whole = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if !whole || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    // What is longer than the name's field is cut at a slash, its beginning being kept elsewhere.
    let (prefix, name) = match name.len() {
        0..=100 => ("", name),
        len => name.split_at_checked(name.get(len - 101..)?.find('/')? + len - 101)?,
    };
    let name = if prefix.is_empty() { name } else { name.strip_prefix('/')? };
    if prefix.len() > 155 {
        return None;
    }
    let mut header = [0; BLOCK];
    let mut put = |at: usize, field: &[u8]| {
        for (to, from) in header.iter_mut().skip(at).zip(field) {
            *to = *from;
        }
    };
    put(0, name.as_bytes());
    put(100, format!("{:07o}\0", mode & 0o7777).as_bytes());
    put(108, b"0000000\0"); // owner
    put(116, b"0000000\0"); // group
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0"); // no time: no clock is read for it
    put(148, b"        "); // counted as spaces in the checksum
    put(156, b"0");
    put(257, b"ustar\x0000");
    put(345, prefix.as_bytes());
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    let sum = format!("{sum:06o}\0 ");
    for (to, from) in header.iter_mut().skip(148).zip(sum.as_bytes()) {
        *to = *from;
    }
    Some(header)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    fn file(path: &str, content: &[u8], mode: u32) -> File {
        File { path: path.into(), content: content.into(), mode }
    }

    fn tar(args: &[&str], archive: &[u8]) -> String {
        let mut child = Command::new("tar")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(archive).unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success());
        String::from_utf8(out.stdout).unwrap()
    }

    #[test]
    fn tar_itself_reads_it() {
        let long = format!("/{}/{}", "d".repeat(90), "f".repeat(60));
        let content = vec![b'x'; 700];
        let all = [file("/etc/a.cfg", &content, 0o644), file(&long, b"key", 0o600)];
        let bytes = archive(&all).unwrap();
        let listing = tar(&["-tv", "--numeric-owner", "-f", "-"], &bytes);
        let lines: Vec<Vec<&str>> =
            listing.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0][..3], ["-rw-r--r--", "0/0", "700"]);
        assert_eq!(lines[1][..3], ["-rw-------", "0/0", "3"]);
        assert_eq!((lines[0][5], lines[1][5]), ("etc/a.cfg", &long[1..]));
        assert_eq!(tar(&["-xO", "-f", "-", "etc/a.cfg"], &bytes).as_bytes(), content);
        assert_eq!(tar(&["-xO", "-f", "-", &long[1..]], &bytes), "key");
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        let long = format!("/{}", "x".repeat(101));
        for bad in ["", "/", "a", "/a/../b", "/./a", "//a", "/a/", "/a\nb", "/é", &long] {
            assert!(archive(&[file(bad, b"", 0o644)]).is_err(), "{bad:?} was taken");
        }
    }
}
