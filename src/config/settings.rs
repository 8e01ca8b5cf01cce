//! Where settings come from: a `.properties` file, then `--override key=value`. Every key is known and every value
//! valid before anything starts; an error names the place and the nearest known key.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::keys::{self, Key};

/// Properties that were set, by name: all known, all valid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<&'static str, String>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    /// Where it was set.
    pub place: Place,
    /// What is wrong, and what to do about it.
    pub problem: String,
}

/// Where a property was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Line of a file; 0: the file as such.
    File(PathBuf, usize),
    /// On the command line.
    Override,
    /// The combination of several.
    Combined,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(path, 0) => write!(f, "{}", path.display()),
            Place::File(path, line) => write!(f, "{}:{line}", path.display()),
            Place::Override => f.write_str("--override"),
            Place::Combined => f.write_str("configuration"),
        }
    }
}

impl Settings {
    /// Reads a file of properties.
    pub fn read(path: &Path) -> Result<Settings, ConfigError> {
        let error = |line, problem| ConfigError { place: Place::File(path.into(), line), problem };
        let bytes = std::fs::read(path).map_err(|e| error(0, format!("cannot be read: {e}")))?;
        Settings::parse(path, &bytes)
    }

    /// Reads the bytes of the file `path`.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Settings, ConfigError> {
        let error = |line, problem| ConfigError { place: Place::File(path.into(), line), problem };
        let mut settings = Settings::default();
        for line in java_properties::PropertiesIter::new(bytes) {
            let line = line.map_err(|e| error(e.line_number().unwrap_or(0), format!("not a properties file: {e}")))?;
            if let java_properties::LineContent::KVPair(name, value) = line.content() {
                settings.set(name, value).map_err(|problem| error(line.line_number(), problem))?;
            }
        }
        Ok(settings)
    }

    /// Sets `key=value`, as given on the command line.
    pub fn set_override(&mut self, assignment: &str) -> Result<(), ConfigError> {
        let error = |problem| ConfigError { place: Place::Override, problem };
        let (name, value) =
            assignment.split_once('=').ok_or_else(|| error(format!("'{assignment}' must be key=value")))?;
        self.set(name.trim(), value.trim()).map_err(error)
    }

    /// Sets one property. The error says what is wrong with it.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let key = keys::broker_key(name).ok_or_else(|| unknown_key(name, keys::broker_keys()))?;
        if !(value.trim().is_empty() && key.default.is_none_or(str::is_empty)) {
            key.check(value)?;
        }
        self.values.insert(key.name, value.to_string());
        Ok(())
    }

    /// The value a property was set to.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// All properties that were set.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.values.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// Properties that were set and have no effect in this broker.
    pub fn without_effect(&self) -> impl Iterator<Item = &'static str> {
        self.values.keys().copied().filter(|name| keys::broker_key(name).is_some_and(|key| !key.has_effect()))
    }
}

fn unknown_key(name: &str, known: impl Iterator<Item = &'static Key>) -> String {
    if name.starts_with("listener.name.") {
        return format!("{name}: settings of a single listener are not supported, there is one PLAINTEXT listener");
    }
    let nearest = known
        .map(|key| (strsim::damerau_levenshtein(name, key.name), key.name))
        .min()
        .filter(|(distance, _)| *distance <= name.len().max(6) / 2);
    match nearest {
        Some((_, nearest)) => format!("unknown key '{name}'; the nearest known one is '{nearest}'"),
        None => format!("unknown key '{name}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        Settings::parse(Path::new("server.properties"), text.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn errors_name_place_and_nearest_key() {
        let settings = parse("# comment\nnum.partitions = 4\n\nlog.retention.hours: 2\n").unwrap();
        assert_eq!(settings.get("num.partitions"), Some("4"));
        assert_eq!(settings.get("log.retention.hours"), Some("2"));
        assert_eq!(
            parse("num.partitions=4\nlog.retention.hour=2\n").unwrap_err(),
            "server.properties:2: unknown key 'log.retention.hour'; the nearest known one is 'log.retention.hours'"
        );
        assert_eq!(
            parse("num.partitions=none\n").unwrap_err(),
            "server.properties:1: Invalid value none for configuration num.partitions: Not a number of type INT"
        );
        let mut settings = Settings::default();
        assert_eq!(settings.set_override("log.segment.recycle.enable=false").map_err(|e| e.to_string()), Ok(()));
        assert_eq!(settings.set_override("zzz").unwrap_err().to_string(), "--override: 'zzz' must be key=value");
        assert!(settings.set_override("qqqqqqqqqqqqqqqqqqqqq=1").unwrap_err().to_string().ends_with("qqqqq'"));
    }

    #[test]
    fn keys_without_effect_are_reported() {
        let settings = parse("num.io.threads=4\nnum.partitions=2\n").unwrap();
        assert_eq!(settings.without_effect().collect::<Vec<_>>(), ["num.io.threads"]);
    }
}
