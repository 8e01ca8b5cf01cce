//! Which value of a key wins: a topic's own, one broker's dynamic value, that of all brokers, the configuration file's
//! (with the command line), the default.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::keys::{self, Key};
use super::settings::Settings;

/// Where a value comes from. The numbers are those of the DescribeConfigs response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Source {
    /// Set for the topic.
    Topic = 1,
    /// Set at run time for this broker.
    DynamicBroker = 2,
    /// Set at run time for all brokers.
    DynamicDefaultBroker = 3,
    /// From the configuration file or the command line.
    StaticBroker = 4,
    /// Kafka's default.
    Default = 5,
    /// Set for the client metrics subscription.
    ClientMetrics = 7,
    /// Set for the group.
    Group = 8,
}

/// A value with the name it was set under.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// The key, or one of its synonyms.
    pub key: &'static Key,
    /// The value; `None`: none, which only a default can be.
    pub value: Option<Cow<'a, str>>,
    /// Where it was set.
    pub source: Source,
}

/// Everything that is set for brokers, strongest first.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    /// Set at run time for one broker.
    pub dynamic: Option<&'a BTreeMap<String, String>>,
    /// Set at run time for all brokers.
    pub dynamic_default: Option<&'a BTreeMap<String, String>>,
    /// The configuration file and the command line.
    pub settings: &'a Settings,
}

impl<'a> Layers<'a> {
    /// Only what was set before the start.
    pub fn of(settings: &'a Settings) -> Layers<'a> {
        Layers { dynamic: None, dynamic_default: None, settings }
    }

    /// All values of a broker's key, the one that counts first, the default last.
    pub fn broker_values(&self, key: &'static Key) -> Vec<Found<'a>> {
        let mut found = self.set_values(key);
        if key.default.is_some() || found.is_empty() {
            found.push(Found { key, value: key.default.map(Cow::Borrowed), source: Source::Default });
        }
        found
    }

    /// The value of a broker's key that counts.
    pub fn broker_value(&self, key: &'static Key) -> Option<Cow<'a, str>> {
        self.broker_values(key).swap_remove(0).value
    }

    /// What DescribeConfigs lists as the synonyms of a broker's key: the values of all names of the same setting, layer by
    /// layer, each as it was given, from the first one that has the key's own name.
    pub fn broker_synonyms(&self, key: &'static Key) -> Vec<Found<'a>> {
        let names = keys::same_setting(key);
        let mut found: Vec<_> = names.iter().flat_map(|name| self.set_values(name)).collect();
        found.sort_by_key(|found| found.source as i8);
        let default = |key: &&'static Key| {
            let value = Some(Cow::Borrowed(key.default?));
            Some(Found { key, value, source: Source::Default })
        };
        found.extend(names.iter().filter_map(default));
        found.into_iter().skip_while(|found| found.key.name != key.name).collect()
    }

    /// The same of a topic's key: its own value, then what it defaults to.
    pub fn topic_synonyms(&self, key: &'static Key, overrides: &'a BTreeMap<String, String>) -> Vec<Found<'a>> {
        let own = overrides.get(key.name).map(|value| Found { key, value: Some(value.into()), source: Source::Topic });
        let brokers = key.synonyms.first().map(|(broker_key, _)| self.broker_synonyms(broker_key));
        own.into_iter().chain(brokers.unwrap_or_default()).collect()
    }

    /// All values of a topic's key, the one that counts first, the default last.
    pub fn topic_values(&self, key: &'static Key, overrides: &'a BTreeMap<String, String>) -> Vec<Found<'a>> {
        let mut found = Vec::new();
        if let Some(value) = overrides.get(key.name) {
            found.push(Found { key, value: Some(value.into()), source: Source::Topic });
        }
        for (synonym, factor) in &key.synonyms {
            found.extend(self.set_values(synonym).into_iter().map(|f| f.scaled(*factor)));
        }
        // Defaults: of the synonym that has one (log.retention.hours for retention.ms).
        let named = key.synonyms.iter().map(|(k, _)| *k).find(|k| k.default.is_some()).unwrap_or(key);
        found.push(Found { key: named, value: key.default.map(Cow::Borrowed), source: Source::Default });
        found
    }

    /// The value of a topic's key that counts.
    pub fn topic_value(&self, key: &'static Key, overrides: &'a BTreeMap<String, String>) -> Option<Cow<'a, str>> {
        self.topic_values(key, overrides).swap_remove(0).value
    }

    fn set_values(&self, key: &'static Key) -> Vec<Found<'a>> {
        let layers = [
            (self.dynamic.and_then(|d| d.get(key.name)).map(String::as_str), Source::DynamicBroker),
            (self.dynamic_default.and_then(|d| d.get(key.name)).map(String::as_str), Source::DynamicDefaultBroker),
            (self.settings.get(key.name), Source::StaticBroker),
        ];
        // A key without a default can be unset by an empty value.
        let is_set = |value: &&str| !(value.trim().is_empty() && key.default.is_none());
        layers
            .into_iter()
            .filter_map(|(value, source)| {
                let value = value.filter(is_set)?;
                Some(Found { key, value: Some(value.into()), source })
            })
            .collect()
    }
}

impl Found<'_> {
    /// Hours and minutes in milliseconds. Negative: no limit.
    fn scaled(mut self, factor: i64) -> Self {
        if factor != 1 {
            let value = self.value.as_deref().and_then(|v| v.trim().parse::<i64>().ok());
            self.value = value.map(|v| if v < 0 { -1 } else { v.saturating_mul(factor) }.to_string().into());
        }
        self
    }
}

/// The values of one object, read by name. Every value has been checked by its key, so parsing cannot fail; if a
/// key is missing from the tables, that is our bug and it says so.
pub(super) struct Values<'a, F: Fn(&'static Key) -> Option<Cow<'a, str>>> {
    pub(super) find: F,
    pub(super) key: fn(&str) -> Option<&'static Key>,
}

impl<'a, F: Fn(&'static Key) -> Option<Cow<'a, str>>> Values<'a, F> {
    /// The text of a key, or `None`.
    pub(super) fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        let key = (self.key)(name).unwrap_or_else(|| panic!("no key {name} in the tables"));
        debug_assert!(key.has_effect(), "{name} is acted on, so its row must say what it does");
        (self.find)(key)
    }

    /// A number (or any other type that parses) of a key that has a default.
    pub(super) fn get<T: std::str::FromStr>(&self, name: &str) -> T {
        let text = self.text(name).unwrap_or_default();
        text.trim().parse().unwrap_or_else(|_| panic!("{name}={text} should have been refused"))
    }

    /// A limit: negative and the largest number mean that there is none.
    pub(super) fn limit(&self, name: &str) -> Option<u64> {
        u64::try_from(self.get::<i64>(name)).ok().filter(|limit| *limit != i64::MAX as u64)
    }

    /// A number that the table does not allow to be negative.
    pub(super) fn unsigned(&self, name: &str) -> u64 {
        u64::try_from(self.get::<i64>(name)).unwrap_or(0)
    }

    /// The same in 32 bits.
    pub(super) fn unsigned32(&self, name: &str) -> u32 {
        u32::try_from(self.get::<i64>(name).max(0)).unwrap_or(u32::MAX)
    }

    /// A switch.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|v| v.trim().eq_ignore_ascii_case("true"))
    }

    /// A list.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        self.text(name).map(|v| keys::list(&v).map(str::to_string).collect()).unwrap_or_default()
    }
}
