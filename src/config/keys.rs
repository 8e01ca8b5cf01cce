//! The tables of all keys: `broker_keys.txt`, `topic_keys.txt` and the two small ones of groups and client metrics
//! subscriptions. Kafka's names, types, defaults and bounds.
//! A value is checked here and nowhere else; the messages are those Kafka's clients show to their users.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// What a value is made of. The numbers are those of the DescribeConfigs response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Kind {
    /// `true` or `false`.
    Boolean = 1,
    /// Text.
    String = 2,
    /// 32 bits.
    Int = 3,
    /// 16 bits.
    Short = 4,
    /// 64 bits.
    Long = 5,
    /// Floating point.
    Double = 6,
    /// Values separated by commas.
    List = 7,
    /// The name of a Java class.
    Class = 8,
    /// Text that is never shown.
    Password = 9,
}

/// Which values are allowed, besides those of its kind.
#[derive(Clone, Debug, PartialEq)]
enum Valid {
    Any,
    Range {
        min: f64,
        max: Option<f64>,
    },
    /// A range, or one number besides.
    RangeOr(i64, i64, i64),
    /// Of a list: each of its values; the empty one stands for a list without any.
    OneOf(Vec<&'static str>),
    /// `*`, or partition:broker pairs.
    ThrottledReplicas,
}

/// One property.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its default.
    pub default: Option<&'static str>,
    valid: Valid,
    /// Whether it can be changed while the broker runs.
    pub dynamic: bool,
    /// Of a topic's key: the brokers' keys it defaults to, the first one that is set, times a factor.
    pub synonyms: Vec<(&'static Key, i64)>,
    /// What it does. Empty: it is known, and without effect in this broker.
    pub doc: &'static str,
}

impl Key {
    /// Known from Kafka's configuration, but nothing here acts on it.
    pub fn has_effect(&self) -> bool {
        !self.doc.is_empty()
    }

    /// Its value is a secret.
    pub fn is_sensitive(&self) -> bool {
        self.kind == Kind::Password
    }

    /// Internal to the broker and its tests: not described to clients.
    pub fn is_internal(&self) -> bool {
        self.name.starts_with("internal.")
    }

    /// A value as it is shown: what it was understood as, however it was written.
    pub fn shown<'a>(&self, value: &'a str) -> Cow<'a, str> {
        let trimmed = value.trim();
        match self.kind {
            Kind::Boolean => trimmed.to_ascii_lowercase().into(),
            Kind::Int | Kind::Short | Kind::Long => match trimmed.parse::<i64>() {
                Ok(number) => number.to_string().into(),
                Err(_) => trimmed.into(),
            },
            Kind::List => {
                let mut values: Vec<&str> = Vec::new();
                list(trimmed).for_each(|value| {
                    if !values.contains(&value) {
                        values.push(value);
                    }
                });
                values.join(",").into()
            }
            Kind::String | Kind::Double | Kind::Class | Kind::Password => trimmed.into(),
        }
    }

    /// Checks a value. The error is Kafka's message.
    pub fn check(&self, value: &str) -> Result<(), String> {
        let invalid = |what: &str| format!("Invalid value {value} for configuration {}: {what}", self.name);
        let trimmed = value.trim();
        let number = match self.kind {
            Kind::Boolean => {
                if !trimmed.eq_ignore_ascii_case("true") && !trimmed.eq_ignore_ascii_case("false") {
                    return Err(invalid("Expected value to be either true or false"));
                }
                None
            }
            Kind::Int => Some(trimmed.parse::<i32>().map_err(|_| invalid("Not a number of type INT"))? as f64),
            Kind::Short => Some(trimmed.parse::<i16>().map_err(|_| invalid("Not a number of type SHORT"))? as f64),
            Kind::Long => Some(trimmed.parse::<i64>().map_err(|_| invalid("Not a number of type LONG"))? as f64),
            Kind::Double => match trimmed.parse::<f64>() {
                Ok(n) if n.is_finite() => Some(n),
                _ => return Err(invalid("Not a number of type DOUBLE")),
            },
            Kind::String | Kind::List | Kind::Class | Kind::Password => None,
        };
        match &self.valid {
            Valid::Any => {}
            Valid::Range { min, max } => {
                let number = number.unwrap_or(*min);
                if number < *min {
                    return Err(invalid(&format!("Value must be at least {min}")));
                }
                if let Some(max) = max.filter(|max| number > *max) {
                    return Err(invalid(&format!("Value must be no more than {max}")));
                }
            }
            Valid::RangeOr(min, max, other) => {
                let number = number.unwrap_or(*min as f64);
                if !(*min as f64..=*max as f64).contains(&number) && number != *other as f64 {
                    return Err(invalid(&format!("Value must be between {min} and {max} or equal to {other}")));
                }
            }
            Valid::OneOf(allowed) => {
                let fits = |v: &str| allowed.contains(&v);
                let all_fit = match self.kind {
                    Kind::List if trimmed.is_empty() => fits(""),
                    Kind::List if trimmed.split(',').any(|v| v.trim().is_empty()) => {
                        return Err(format!("Configuration '{}' values must not be empty.", self.name));
                    }
                    Kind::List => list(trimmed).all(fits),
                    _ => fits(trimmed),
                };
                if !all_fit {
                    let named: Vec<&str> = allowed.iter().copied().filter(|a| !a.is_empty()).collect();
                    return Err(invalid(&format!("String must be one of: {}", named.join(", "))));
                }
            }
            Valid::ThrottledReplicas => {
                let pair = |v: &str| {
                    v.split_once(':')
                        .is_some_and(|(p, b)| p.trim().parse::<u32>().is_ok() && b.trim().parse::<u32>().is_ok())
                };
                if trimmed != "*" && !list(trimmed).all(pair) {
                    let name = self.name;
                    return Err(format!(
                        "Invalid value [{}] for configuration {name}: {name} must be the literal '*' or a list of replicas in \
                         the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
                        list(trimmed).collect::<Vec<_>>().join(", ")
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The values of a list, trimmed; an empty string is an empty list.
pub fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|v| !v.is_empty())
}

/// A broker's key by name.
pub fn broker_key(name: &str) -> Option<&'static Key> {
    BROKER_KEYS.get(name)
}

/// A topic's key by name.
pub fn topic_key(name: &str) -> Option<&'static Key> {
    TOPIC_KEYS.get(name)
}

/// A group's key by name.
pub fn group_key(name: &str) -> Option<&'static Key> {
    GROUP_KEYS.get(name)
}

/// The key of a client metrics subscription by name.
pub fn client_metrics_key(name: &str) -> Option<&'static Key> {
    CLIENT_METRICS_KEYS.get(name)
}

/// All keys of groups, by name.
pub fn group_keys() -> impl Iterator<Item = &'static Key> {
    GROUP_KEYS.values()
}

/// All keys of client metrics subscriptions, by name.
pub fn client_metrics_keys() -> impl Iterator<Item = &'static Key> {
    CLIENT_METRICS_KEYS.values()
}

/// All names of the setting that a broker's key belongs to, the strongest first: `log.retention.ms`, then minutes, then
/// hours.
pub fn same_setting(key: &'static Key) -> Vec<&'static Key> {
    let names = topic_keys().map(|topic| &topic.synonyms).find(|names| names.iter().any(|(k, _)| k.name == key.name));
    names.filter(|names| names.len() > 1).map_or(vec![key], |names| names.iter().map(|(key, _)| *key).collect())
}

/// All keys of brokers, by name.
pub fn broker_keys() -> impl Iterator<Item = &'static Key> {
    BROKER_KEYS.values()
}

/// All keys of topics, by name.
pub fn topic_keys() -> impl Iterator<Item = &'static Key> {
    TOPIC_KEYS.values()
}

static BROKER_KEYS: LazyLock<BTreeMap<&'static str, Key>> = LazyLock::new(|| {
    rows(include_str!("broker_keys.txt"))
        .map(|row| (row[0], Key { dynamic: row[4] == "dynamic", ..key(&row) }))
        .collect()
});

static TOPIC_KEYS: LazyLock<BTreeMap<&'static str, Key>> =
    LazyLock::new(|| keys_over_brokers(include_str!("topic_keys.txt")));

static GROUP_KEYS: LazyLock<BTreeMap<&'static str, Key>> =
    LazyLock::new(|| keys_over_brokers(include_str!("group_keys.txt")));

static CLIENT_METRICS_KEYS: LazyLock<BTreeMap<&'static str, Key>> =
    LazyLock::new(|| keys_over_brokers(include_str!("client_metrics_keys.txt")));

/// A table whose fifth column names the brokers' keys that are defaulted to.
fn keys_over_brokers(table: &'static str) -> BTreeMap<&'static str, Key> {
    rows(table)
        .map(|row| {
            let synonyms = row[4].split(' ').filter(|s| !s.is_empty() && *s != "-").map(|synonym| {
                let (name, factor) = synonym.split_once('*').unwrap_or((synonym, "1"));
                let broker_key = BROKER_KEYS.get(name).unwrap_or_else(|| panic!("no broker key {name}"));
                (broker_key, factor.parse().expect("a factor is a number"))
            });
            (row[0], Key { synonyms: synonyms.collect(), ..key(&row) })
        })
        .collect()
}

fn rows(table: &'static str) -> impl Iterator<Item = [&'static str; 6]> {
    table.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut fields = line.splitn(6, '|').map(str::trim);
        std::array::from_fn(|_| fields.next().unwrap_or_default())
    })
}

fn key(row: &[&'static str; 6]) -> Key {
    let [name, kind, default, valid, _, doc] = *row;
    let kind = match kind {
        "boolean" => Kind::Boolean,
        "string" => Kind::String,
        "int" => Kind::Int,
        "short" => Kind::Short,
        "long" => Kind::Long,
        "double" => Kind::Double,
        "list" => Kind::List,
        "class" => Kind::Class,
        "password" => Kind::Password,
        other => panic!("{name}: no type {other}"),
    };
    let default = match default {
        "null" => None,
        "\"\"" => Some(""),
        value => Some(value),
    };
    let valid = match valid {
        "any" => Valid::Any,
        "throttle" => Valid::ThrottledReplicas,
        range if range.contains(" or ") => {
            let (range, other) = range.split_once(" or ").expect("it contains or");
            let (min, max) = range.split_once("..").expect("a range comes first");
            let [min, max, other] = [min, max, other].map(|n| n.parse().expect("a bound is a number"));
            Valid::RangeOr(min, max, other)
        }
        range if range.contains("..") => {
            let (min, max) = range.split_once("..").expect("it contains ..");
            Valid::Range {
                min: min.parse().expect("a bound is a number"),
                max: (!max.is_empty()).then(|| max.parse().expect("a bound is a number")),
            }
        }
        names => Valid::OneOf(names.split('/').collect()),
    };
    Key { name, kind, default, valid, dynamic: true, synonyms: Vec::new(), doc }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_hold_valid_defaults() {
        assert!(broker_keys().count() > 300 && topic_keys().count() > 30);
        for key in broker_keys().chain(topic_keys()).chain(group_keys()).chain(client_metrics_keys()) {
            if let Some(default) = key.default.filter(|d| !d.is_empty()) {
                assert_eq!(key.check(default), Ok(()), "{}", key.name);
            }
        }
        for key in topic_keys().chain(group_keys()) {
            // A topic's (or group's) default is what its broker keys default to.
            if let Some((synonym, factor)) = key.synonyms.last() {
                match (key.kind, synonym.default) {
                    (Kind::Long | Kind::Int, Some(default)) => {
                        let scaled: i64 = default.parse::<i64>().unwrap() * factor;
                        assert_eq!(key.default.unwrap(), scaled.to_string(), "{}", key.name);
                    }
                    (_, default) => assert_eq!(key.default, default, "{}", key.name),
                }
            }
        }
    }

    #[test]
    fn values_are_refused_with_kafkas_words() {
        let check = |name: &str, value: &str| topic_key(name).unwrap().check(value);
        assert_eq!(check("segment.bytes", "1048576"), Ok(()));
        assert_eq!(
            check("segment.bytes", "1000").unwrap_err(),
            "Invalid value 1000 for configuration segment.bytes: Value must be at least 1048576"
        );
        assert_eq!(
            check("retention.ms", "soon").unwrap_err(),
            "Invalid value soon for configuration retention.ms: Not a number of type LONG"
        );
        assert_eq!(
            check("preallocate", "yes").unwrap_err(),
            "Invalid value yes for configuration preallocate: Expected value to be either true or false"
        );
        assert_eq!(
            check("cleanup.policy", "compact,burn").unwrap_err(),
            "Invalid value compact,burn for configuration cleanup.policy: String must be one of: compact, delete"
        );
        assert_eq!(check("cleanup.policy", "compact, delete"), Ok(()));
        assert_eq!(check("cleanup.policy", "delete,delete"), Ok(()));
        assert_eq!(check("cleanup.policy", " "), Ok(()), "without a policy everything is kept");
        for cut in ["compact,", ","] {
            let message = "Configuration 'cleanup.policy' values must not be empty.";
            assert_eq!(check("cleanup.policy", cut).unwrap_err(), message);
        }
        assert_eq!(
            check("cleanup.policy", "DELETE").unwrap_err(),
            "Invalid value DELETE for configuration cleanup.policy: String must be one of: compact, delete"
        );
        assert!(broker_key("process.roles").unwrap().check("").is_err());
        assert!(check("min.cleanable.dirty.ratio", "1.1").is_err());
        assert!(check("leader.replication.throttled.replicas", "0:1,2:3").is_ok());
        assert!(check("leader.replication.throttled.replicas", "0-1").is_err());
        assert!(check("message.timestamp.type", "logappendtime").is_err());
    }

    #[test]
    fn values_are_shown_as_they_were_understood() {
        let shown = |name: &str, value: &str| topic_key(name).unwrap().shown(value).into_owned();
        assert_eq!(shown("cleanup.policy", " compact , delete,compact"), "compact,delete");
        assert_eq!(shown("cleanup.policy", " "), "");
        assert_eq!(shown("retention.ms", " +77 "), "77");
        assert_eq!(shown("preallocate", "True"), "true");
        assert_eq!(shown("compression.type", " gzip"), "gzip");
        assert_eq!(shown("min.cleanable.dirty.ratio", "0.5"), "0.5");
    }
}
