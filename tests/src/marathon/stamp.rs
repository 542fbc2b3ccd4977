//! Moments as Marathon writes them: always three digits of milliseconds, so that their text sorts as they do.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

/// Milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u64);

impl Stamp {
    /// Later by this.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long it is past `earlier`; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Of text in any of the forms of ISO 8601 that clients send.
    pub fn parse(text: &str) -> Option<Self> {
        let at: jiff::Timestamp = text.parse().ok()?;
        u64::try_from(at.as_millisecond()).ok().map(Self)
    }

    /// As JSON.
    pub fn json(self) -> Value {
        Value::String(self.to_string())
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at =
            i64::try_from(self.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        write!(f, "{}", at.unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S.%3fZ"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_of_milliseconds_always() {
        assert_eq!(Stamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Stamp(1_500_485_681_967).to_string(), "2017-07-19T17:34:41.967Z");
        assert_eq!(Stamp::parse("2017-07-19T17:34:41.967Z"), Some(Stamp(1_500_485_681_967)));
        assert_eq!(Stamp::parse("2017-07-19T19:34:41.967+02:00"), Some(Stamp(1_500_485_681_967)));
        assert_eq!(Stamp::parse("fakeversion"), None);
    }
}
