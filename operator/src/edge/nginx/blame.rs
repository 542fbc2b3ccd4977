//! Who is to blame for what `nginx -t` says.

use super::page::{Culprit, Part};
use super::render::{LeftOut, Rendered};

/// What the file under test is called, as nginx's messages name it.
pub(super) const CANDIDATE: &str = "/etc/evenkeel/candidate.conf";

/// The longest part of a message that is passed on.
const LONGEST: usize = 300;

/// What nginx has against a configuration, in its own words; `file` is the one that was tried.
pub(super) fn complaint(output: &str, file: &str) -> String {
    let emerg = output.lines().find(|line| line.contains("[emerg]"));
    let line = emerg.or_else(|| output.lines().last()).unwrap_or("it does not say why");
    let said = line.split_once("[emerg] ").map_or(line, |(_, said)| said);
    // A line without its level begins with the process: `1#1: …`.
    let said = said.split_once('#').map_or(said, |(before, after)| match after.split_once(": ") {
        Some((id, rest)) if number(before) && number(id) => rest,
        Some(_) | None => said,
    });
    let said = said
        .rsplit_once(" in ")
        .map_or(said, |(said, place)| if place.starts_with(file) { said } else { line });
    said.chars().take(LONGEST).collect()
}

fn number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Who is to blame, of what is still in: whoever the named line belongs to or the named certificate; where that is
/// nobody, one of the fragments, because what is evenkeel's own is known to be valid without them.
///
/// Beside the configuration of somebody else only what nginx names is to blame: it may be theirs that it does not take.
pub(super) fn culprit(
    output: &str,
    file: &str,
    rendered: &Rendered,
    left_out: &LeftOut,
) -> Option<Culprit> {
    let certificate = rendered.certificates.iter().find(|(_, file)| output.contains(&file.path));
    if let Some((name, _)) = certificate {
        return Some(Culprit::Certificate(name.clone()));
    }
    let line = line(output, file).and_then(|line| rendered.culprits.get(line.checked_sub(1)?));
    match line {
        None if file != CANDIDATE => None,
        Some(Culprit::Ours) | None => Part::ALL
            .map(Culprit::Part)
            .into_iter()
            .find(|part| rendered.culprits.contains(part) && !left_out.contains_key(part)),
        Some(culprit) => Some(culprit.clone()),
    }
}

fn line(output: &str, file: &str) -> Option<usize> {
    let (_, rest) = output.split_once(&format!("{file}:"))?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::File;
    use crate::edge::nginx::facts::Facts;

    fn rendered() -> Rendered {
        let path = "/etc/evenkeel/certificates/tls.pem-01.pem".to_owned();
        let file = File { path, content: Vec::new(), mode: 0o600 };
        let (route, part) = (Culprit::Route(3), Culprit::Part(Part::Frontend));
        Rendered {
            text: String::new(),
            culprits: vec![Culprit::Ours, route, part],
            certificates: vec![("tls.pem".into(), file)],
            facts: Facts::default(),
        }
    }

    #[test]
    fn the_line_says_who() {
        let who = |output: &str| culprit(output, CANDIDATE, &rendered(), &LeftOut::new());
        let at = |line| format!("nginx: [emerg] unknown directive \"x\" in {CANDIDATE}:{line}\n");
        assert_eq!(who(&at(2)), Some(Culprit::Route(3)));
        assert_eq!(who(&at(3)), Some(Culprit::Part(Part::Frontend)));
        // Evenkeel's own line: something a person added must be in its way.
        assert_eq!(who(&at(1)), Some(Culprit::Part(Part::Frontend)));
        assert_eq!(who(&at(0)), Some(Culprit::Part(Part::Frontend)));
        let out = LeftOut::from([(Culprit::Part(Part::Frontend), String::new())]);
        assert_eq!(culprit(&at(1), CANDIDATE, &rendered(), &out), None);
        let said = "nginx: [emerg] cannot load certificate \
            \"/etc/evenkeel/certificates/tls.pem-01.pem\": PEM_read_bio_X509_AUX() failed";
        assert_eq!(who(said), Some(Culprit::Certificate("tls.pem".into())));
    }

    #[test]
    fn the_complaint_is_what_nginx_says_without_where() {
        let output = format!(
            "nginx: [warn] x\n2026/01/01 00:00:00 [emerg] 12#12: unknown directive \"gzap\" in {CANDIDATE}:7\n\
             nginx: configuration file {CANDIDATE} test failed\n"
        );
        assert_eq!(complaint(&output, CANDIDATE), "unknown directive \"gzap\"");
        assert_eq!(
            complaint("nginx: [emerg] no \"events\" section", CANDIDATE),
            "no \"events\" section"
        );
        assert_eq!(complaint("sh: nginx: not found", CANDIDATE), "sh: nginx: not found");
        assert_eq!(complaint("", CANDIDATE), "it does not say why");
        assert_eq!(
            complaint(&format!("nginx: [emerg] {}", "x".repeat(9999)), CANDIDATE).len(),
            LONGEST
        );
    }
}
