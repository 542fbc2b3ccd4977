//! What the environment says: parsed once, refused as a whole when any of it makes no sense.

use std::time::Duration;

/// How this instance names itself and how it behaves from the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) service: String,
    pub(crate) instance: String,
    pub(crate) version: String,
    pub(crate) environment: String,
    pub(crate) port: u16,
    pub(crate) start_delay: Duration,
    pub(crate) slow: Duration,
    pub(crate) unhealthy: bool,
    pub(crate) unhealthy_after: Option<Duration>,
    pub(crate) crash_after: Option<Duration>,
    pub(crate) ignore_term: bool,
    pub(crate) linger: Duration,
}

impl Settings {
    /// Reads the settings through `get`, which is the environment outside of tests.
    /// An empty variable counts as absent.
    pub(crate) fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let text = |name: &str, default: &str| get(name).unwrap_or_else(|| default.to_owned());
        let span = |name: &str| {
            get(name)
                .map(|value| duration(&value).ok_or_else(|| wrong(name, &value, "500ms, 5s, 1m")))
                .transpose()
        };
        let flag = |name: &str| match get(name).as_deref() {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true") => Ok(true),
            Some(value) => Err(wrong(name, value, "1 or 0")),
        };
        Ok(Self {
            service: text("SERVICE", "toy"),
            instance: text("HOSTNAME", "unknown"),
            version: text("TOY_VERSION", "dev"),
            environment: text("ENVIRONMENT", "none"),
            port: match get("TOY_PORT") {
                None => 8080,
                Some(value) => value.parse().map_err(|_| wrong("TOY_PORT", &value, "8080"))?,
            },
            start_delay: span("TOY_START_DELAY")?.unwrap_or_default(),
            slow: span("TOY_SLOW")?.unwrap_or_default(),
            unhealthy: flag("TOY_UNHEALTHY")?,
            unhealthy_after: span("TOY_UNHEALTHY_AFTER")?,
            crash_after: span("TOY_CRASH_AFTER")?,
            ignore_term: flag("TOY_IGNORE_TERM")?,
            linger: span("TOY_LINGER")?.unwrap_or_default(),
        })
    }
}

fn wrong(name: &str, value: &str, example: &str) -> String {
    format!("{name}={value} makes no sense\nhint: {name} takes {example}")
}

/// `500ms`, `5s`, `1m`, and `0`, which needs no unit.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        "" if number == 0 => Some(Duration::ZERO),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(env: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::read(|name| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn an_empty_environment_is_a_healthy_service_on_8080() {
        let settings = read(&[("TOY_SLOW", ""), ("TOY_UNHEALTHY", "")]).unwrap();
        assert_eq!(
            (settings.port, settings.unhealthy, settings.slow),
            (8080, false, Duration::ZERO)
        );
        assert_eq!((settings.crash_after, settings.unhealthy_after), (None, None));
        assert_eq!(settings.service, "toy");
    }

    #[test]
    fn every_variable_is_read() {
        let settings = read(&[
            ("SERVICE", "web"),
            ("HOSTNAME", "c0ffee"),
            ("TOY_VERSION", "2"),
            ("ENVIRONMENT", "test"),
            ("TOY_PORT", "9090"),
            ("TOY_START_DELAY", "2s"),
            ("TOY_SLOW", "500ms"),
            ("TOY_UNHEALTHY", "1"),
            ("TOY_UNHEALTHY_AFTER", "5s"),
            ("TOY_CRASH_AFTER", "1m"),
            ("TOY_IGNORE_TERM", "true"),
            ("TOY_LINGER", "3s"),
        ])
        .unwrap();
        let expect = Settings {
            service: "web".into(),
            instance: "c0ffee".into(),
            version: "2".into(),
            environment: "test".into(),
            port: 9090,
            start_delay: Duration::from_secs(2),
            slow: Duration::from_millis(500),
            unhealthy: true,
            unhealthy_after: Some(Duration::from_secs(5)),
            crash_after: Some(Duration::from_secs(60)),
            ignore_term: true,
            linger: Duration::from_secs(3),
        };
        assert_eq!(settings, expect);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (name, value) in [
            ("TOY_PORT", "65536"),
            ("TOY_SLOW", "5"),
            ("TOY_UNHEALTHY", "yes"),
            ("TOY_CRASH_AFTER", "-1s"),
        ] {
            let problem = read(&[(name, value)]).unwrap_err();
            assert!(problem.starts_with(&format!("{name}={value} ")), "{problem}");
        }
    }

    #[test]
    fn durations() {
        let ms = |n| Some(Duration::from_millis(n));
        assert_eq!(duration("500ms"), ms(500));
        assert_eq!(duration("5s"), ms(5_000));
        assert_eq!(duration("2m"), ms(120_000));
        assert_eq!(duration("0"), ms(0));
        for wrong in ["", "5", "s", "5h", "1.5s", "-1s", " 1s", "99999999999999999999s"] {
            assert_eq!(duration(wrong), None, "{wrong:?}");
        }
        assert_eq!(duration("18446744073709551615m"), None);
    }
}
