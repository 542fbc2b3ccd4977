//! Which Marathon a server pretends to be, and what came with which release.

use std::fmt;

/// A release, such as 1.9.109.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Release {
    /// The newest of the old ones: null for what is not there, ports as they were before networks.
    pub const V1_4: Self = Self::new(1, 4, 13);
    /// The first line with networks.
    pub const V1_5: Self = Self::new(1, 5, 15);
    /// The line whose standby redirects event streams.
    pub const V1_7: Self = Self::new(1, 7, 236);
    /// The line whose tasks keep the id of their instance.
    pub const V1_8: Self = Self::new(1, 8, 244);
    /// The line with roles.
    pub const V1_9: Self = Self::new(1, 9, 109);
    /// The line with limits of resources.
    pub const V1_10: Self = Self::new(1, 10, 26);
    /// The last line.
    pub const V1_11: Self = Self::new(1, 11, 24);

    /// Of its three numbers.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Of text such as `1.9` or `1.9.109`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim_start_matches('v').split('.').map(str::parse);
        let mut next = || numbers.next().transpose().ok();
        let (major, minor, patch) = (next()??, next()??, next()?.unwrap_or(0));
        numbers.next().is_none().then_some(Self { major, minor, patch })
    }

    /// Whether it is of the line 1.`minor` or a later one.
    pub fn has(self, minor: u32) -> bool {
        (self.major, self.minor) >= (1, minor)
    }

    /// Whether unreachable tasks were replaced only after minutes when nothing was said.
    pub(super) fn is_patient(self) -> bool {
        self < Self::new(1, 4, 9) || (self.major, self.minor, self.patch) == (1, 5, 0)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_ordered_by_number_and_not_by_letter() {
        let of = |text| Release::parse(text).unwrap();
        assert!(of("1.10.5") > of("1.9.109") && of("1.9.109") > of("1.9.81"));
        assert!(of("1.10").has(9) && !of("1.9.100").has(10) && of("2.0.0").has(11));
        assert!(of("1.5.0").is_patient() && !of("1.5.1").is_patient() && of("1.4.2").is_patient());
        assert_eq!(of("v1.4").to_string(), "1.4.0");
        for wrong in ["", "1", "1.x", "1.2.3.4"] {
            assert_eq!(Release::parse(wrong), None, "{wrong}");
        }
    }
}
