//! A tar archive (POSIX ustar), as little of it as an image needs. The same input gives the same bytes.

const BLOCK: usize = 512;

pub(crate) enum Entry<'a> {
    Directory,
    Program(&'a [u8]),
}

/// Archives `entries`; directories end in `/`. Names are ASCII and at most 100 bytes, as the format wants.
pub(crate) fn archive(entries: &[(&str, Entry<'_>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, entry) in entries {
        let (kind, mode, content): (u8, &[u8], &[u8]) = match entry {
            Entry::Directory => (b'5', b"0000755\0", &[]),
            Entry::Program(content) => (b'0', b"0000755\0", content),
        };
        bytes.extend_from_slice(&header(name, kind, mode, content.len()));
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    bytes
}

fn header(name: &str, kind: u8, mode: &[u8], size: usize) -> [u8; BLOCK] {
    assert!(name.is_ascii() && name.len() <= 100, "{name} does not fit a tar header");
    let mut header = [0; BLOCK];
    let mut put = |at: usize, field: &[u8]| header[at..at + field.len()].copy_from_slice(field);
    put(0, name.as_bytes());
    put(100, mode);
    put(108, b"0000000\0"); // owner
    put(116, b"0000000\0"); // group
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0"); // no time: equal content is an equal layer
    put(148, b"        "); // counted as spaces in the checksum
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::run;

    #[test]
    fn tar_itself_reads_it() {
        let program = vec![b'x'; 700];
        let entries = [("bin/", Entry::Directory), ("bin/toy", Entry::Program(&program))];
        let bytes = archive(&entries);
        assert_eq!(bytes.len() % BLOCK, 0);
        let listing = run("tar").args(["-tv", "--utc", "--numeric-owner", "-f", "-"]).feed(&bytes);
        let listing = listing.unwrap();
        let lines: Vec<Vec<&str>> =
            listing.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["drwxr-xr-x", "0/0", "0", "1970-01-01", "00:00", "bin/"]);
        assert_eq!(lines[1], ["-rwxr-xr-x", "0/0", "700", "1970-01-01", "00:00", "bin/toy"]);
        assert_eq!(lines.len(), 2);
        let content = run("tar").args(["-xO", "-f", "-", "bin/toy"]).feed(&bytes).unwrap();
        assert_eq!(content.as_bytes(), program);
    }

    #[test]
    fn equal_input_gives_equal_bytes() {
        let build = || archive(&[("a", Entry::Program(b"1"))]);
        assert_eq!(build(), build());
    }
}
