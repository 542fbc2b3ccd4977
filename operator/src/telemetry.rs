//! The log: to standard error, as text for people or as JSON for collectors.

use std::io::{self, Write};

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("log filter {given:?} is not understood: {why}")]
    Filter {
        /// As given.
        given: String,
        /// What the parser says.
        why: String,
    },
    /// Something else has already set the log up.
    #[error("the log is already set up")]
    Again,
}

impl TelemetryError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Filter { .. } => Some(
                "a level (error, warn, info, debug, trace), or directives as \
                 evenkeel=debug,bollard=info",
            ),
            Self::Again => None,
        }
    }
}

/// Sets the log of this process up. To be called once.
pub fn init(filter: &str, format: LogFormat, colour: bool) -> Result<(), TelemetryError> {
    let log = subscriber(filter, format, colour, io::stderr)?;
    tracing::subscriber::set_global_default(log).map_err(|_| TelemetryError::Again)
}

/// A log that writes elsewhere.
pub fn subscriber<W>(
    filter: &str,
    format: LogFormat,
    colour: bool,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = parse(filter)?;
    let writer = Lossy(writer);
    let registry = tracing_subscriber::registry().with(filter);
    Ok(match format {
        LogFormat::Text => Box::new(
            registry.with(
                tracing_subscriber::fmt::layer()
                    .with_ansi(colour)
                    .with_target(false)
                    .with_writer(writer),
            ),
        ),
        LogFormat::Json => Box::new(
            registry.with(
                tracing_subscriber::fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_current_span(false)
                    .with_writer(writer),
            ),
        ),
    })
}

/// A bare level is meant for evenkeel: nobody who says `debug` wants every frame of every library.
fn parse(given: &str) -> Result<EnvFilter, TelemetryError> {
    let plain = given.trim();
    let bare = ["off", "error", "warn", "info", "debug", "trace"]
        .iter()
        .find(|level| plain.eq_ignore_ascii_case(level));
    let directives = match bare {
        Some(&"off") => "off".to_owned(),
        Some(&"error") => "error".to_owned(),
        Some(level) => format!("warn,evenkeel={level}"),
        None => plain.to_owned(),
    };
    EnvFilter::builder().parse(&directives).map_err(|e| TelemetryError::Filter {
        given: given.chars().take(200).collect(),
        why: e.to_string(),
    })
}

/// Whoever reads the log may go away; the agent must not go with them.
struct Lossy<W>(W);

struct LossyWriter<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Lossy<W> {
    type Writer = LossyWriter<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        LossyWriter(self.0.make_writer())
    }
}

impl<W: Write> Write for LossyWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self.0.write(buf) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(buf.len()),
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0.flush() {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(buf);
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(filter: &str, format: LogFormat, colour: bool) -> String {
        let sink = Sink::default();
        let to = sink.clone();
        let s = subscriber(filter, format, colour, move || to.clone()).unwrap();
        tracing::subscriber::with_default(s, || {
            tracing::debug!(service = "web", "planned");
            tracing::info!(target: "hyper::proto", "noise");
            tracing::warn!(target: "bollard", "real");
        });
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_bare_level_is_meant_for_evenkeel() {
        let text = log("debug", LogFormat::Text, false);
        assert!(text.contains("planned") && text.contains("real"), "{text}");
        assert!(!text.contains("noise") && !text.contains('\x1b'), "{text}");
        assert!(!log("info", LogFormat::Text, false).contains("planned"));
        assert!(log("hyper=info", LogFormat::Text, false).contains("noise"));
        assert!(log("debug", LogFormat::Text, true).contains('\x1b'));
        assert_eq!(log("off", LogFormat::Text, true), "");
    }

    #[test]
    fn json_lines_are_json() {
        let text = log("debug", LogFormat::Json, false);
        assert_eq!(text.lines().count(), 2);
        for line in text.lines() {
            let v: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(v["message"].is_string() && v["level"].is_string(), "{line}");
        }
    }

    #[test]
    fn a_wrong_filter_says_what_is_possible() {
        let e = parse("evenkeel=loud").unwrap_err();
        assert!(e.to_string().contains("evenkeel=loud") && e.hint().is_some());
    }

    #[test]
    fn a_reader_that_went_away_harms_nobody() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        assert_eq!(LossyWriter(Gone).write(b"abc").unwrap(), 3);
        LossyWriter(Gone).flush().unwrap();
    }
}
