//! What may have a password in it, and is never shown.

#[cfg(feature = "kafka")]
use std::collections::BTreeMap;
#[cfg(any(feature = "kafka", feature = "redis"))]
use std::fmt;

#[cfg(any(feature = "kafka", feature = "redis"))]
use serde::Deserialize;

/// A URL that may have a password in it, which is never shown.
#[cfg(feature = "redis")]
#[derive(Clone, Deserialize)]
pub(crate) struct SecretUrl(String);

#[cfg(feature = "redis")]
impl SecretUrl {
    /// With the password: for whoever connects.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

#[cfg(feature = "redis")]
impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is before the last `@` of the authority are a user's name and password.
        let Some((scheme, rest)) = self.0.split_once("://") else { return f.write_str("…") };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        match authority.rsplit_once('@') {
            Some((_, host)) => write!(f, "{scheme}://…@{host}{path}"),
            None => write!(f, "{scheme}://{authority}{path}"),
        }
    }
}

#[cfg(feature = "redis")]
impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Properties of a client, one of which may be a password: their values are never shown.
#[cfg(feature = "kafka")]
#[derive(Clone, Default, Deserialize)]
pub(crate) struct Properties(BTreeMap<String, String>);

#[cfg(feature = "kafka")]
impl Properties {
    /// With the passwords: for whoever connects.
    pub(crate) fn reveal(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

#[cfg(feature = "kafka")]
impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
