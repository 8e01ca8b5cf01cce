//! Configuration at run time, of topics and brokers: alter (whole or key by key) and describe. Pure, as `topics`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::incremental_alter_configs_response as incremental;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::image::ClusterImage;
use super::record::{RESOURCE_BROKER, RESOURCE_CLIENT_METRICS, RESOURCE_GROUP, RESOURCE_TOPIC, Record};
use super::topics::check_name;
use super::{Refused, refused, repeated};
use crate::config::keys::{self, Key, Kind, broker_key, topic_key};
use crate::config::layers::Found;
use crate::config::{BrokerConfig, Layers, Source, TopicConfig};
use crate::ids::NodeId;
use crate::limits::DESCRIBED_SETTINGS_MAX;
use crate::wire::error_code::ErrorCode;

mod named;

/// Resource type of a broker's loggers.
const RESOURCE_BROKER_LOGGER: i8 = 8;

/// With eligible leader replicas (KIP-966) it is one for all brokers, and always set.
pub const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";

/// What a request does to one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation<'a> {
    Set(&'a str),
    Delete,
    Append(&'a str),
    Subtract(&'a str),
}

/// IncrementalAlterConfigs.
pub fn alter_incrementally(
    image: &ClusterImage,
    request: &IncrementalAlterConfigsRequest,
) -> (Vec<Record>, IncrementalAlterConfigsResponse) {
    let mut records = Vec::new();
    let repeated = repeated(request.resources.iter().map(|r| (r.resource_type, r.resource_name.as_str())));
    let responses = request.resources.iter().map(|resource| {
        let result = check_once(&repeated, resource.resource_type, &resource.resource_name)
            .and_then(|()| check_keys(resource.configs.iter().map(|config| &config.name)))
            .and_then(|()| {
                let operations = resource.configs.iter().map(|config| {
                    let value = || {
                        config.value.as_deref().ok_or_else(|| {
                            let message = format!("Null value not supported for : {}", &*config.name);
                            refused(ErrorCode::InvalidRequest, message)
                        })
                    };
                    let operation = match config.config_operation {
                        0 => Operation::Set(value()?),
                        1 => Operation::Delete,
                        2 => Operation::Append(value()?),
                        3 => Operation::Subtract(value()?),
                        other => {
                            let message = format!("Unknown operations type {other}");
                            return Err(refused(ErrorCode::InvalidRequest, message));
                        }
                    };
                    Ok((&*config.name, operation))
                });
                let operations = operations.collect::<Result<Vec<_>, _>>()?;
                change(image, resource.resource_type, &resource.resource_name, |_| operations)
            });
        let (code, message) = outcome(result, &mut records);
        incremental::AlterConfigsResourceResponse::default()
            .with_error_code(code)
            .with_error_message(message)
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
    });
    let response = IncrementalAlterConfigsResponse::default().with_responses(responses.collect());
    if request.validate_only {
        records.clear();
    }
    (records, response)
}

/// AlterConfigs: what a resource's request does not name is deleted.
pub fn alter(image: &ClusterImage, request: &AlterConfigsRequest) -> (Vec<Record>, AlterConfigsResponse) {
    let mut records = Vec::new();
    let repeated = repeated(request.resources.iter().map(|r| (r.resource_type, r.resource_name.as_str())));
    let responses = request.resources.iter().map(|resource| {
        let result = check_once(&repeated, resource.resource_type, &resource.resource_name)
            .and_then(|()| check_keys(resource.configs.iter().map(|config| &config.name)))
            .and_then(|()| {
                let mut wanted = BTreeMap::new();
                for config in &resource.configs {
                    let Some(value) = config.value.as_deref() else {
                        let message = format!("Null value not supported for : {}", &*config.name);
                        return Err(refused(ErrorCode::InvalidRequest, message));
                    };
                    wanted.insert(&*config.name, value);
                }
                change(image, resource.resource_type, &resource.resource_name, |current| {
                    let gone = current.keys().filter(|name| !wanted.contains_key(name.as_str()));
                    let gone = gone.map(|name| (name.as_str(), Operation::Delete));
                    gone.chain(wanted.iter().map(|(name, value)| (*name, Operation::Set(value)))).collect()
                })
            });
        let (code, message) = outcome(result, &mut records);
        AlterConfigsResourceResponse::default()
            .with_error_code(code)
            .with_error_message(message)
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
    });
    let response = AlterConfigsResponse::default().with_responses(responses.collect());
    if request.validate_only {
        records.clear();
    }
    (records, response)
}

fn outcome(result: Result<Vec<Record>, Refused>, records: &mut Vec<Record>) -> (i16, Option<StrBytes>) {
    match result {
        Ok(mut changes) => {
            records.append(&mut changes);
            (0, None)
        }
        Err(error) => (error.code.code(), error.message.map(StrBytes::from)),
    }
}

fn check_once(repeated: &BTreeSet<(i8, &str)>, resource_type: i8, resource_name: &str) -> Result<(), Refused> {
    if repeated.contains(&(resource_type, resource_name)) {
        return Err(refused(ErrorCode::InvalidRequest, "Each resource must appear at most once."));
    }
    Ok(())
}

fn check_keys<'a>(names: impl Iterator<Item = &'a StrBytes>) -> Result<(), Refused> {
    if !repeated(names.map(|name| name.as_str())).is_empty() {
        return Err(refused(ErrorCode::InvalidRequest, "Error due to duplicate config keys"));
    }
    Ok(())
}

/// The records that change one resource, after everything about it was checked.
fn change<'a>(
    image: &'a ClusterImage,
    resource_type: i8,
    resource_name: &str,
    operations: impl FnOnce(&'a BTreeMap<String, String>) -> Vec<(&'a str, Operation<'a>)>,
) -> Result<Vec<Record>, Refused> {
    static NOTHING: BTreeMap<String, String> = BTreeMap::new();
    let (current, find): (&BTreeMap<_, _>, fn(&str) -> Option<&'static Key>) = match resource_type {
        RESOURCE_TOPIC => {
            if resource_name.is_empty() {
                return Err(refused(ErrorCode::InvalidRequest, "Default topic resources are not allowed."));
            }
            check_name(resource_name)?;
            (image.topic(resource_name).map_or(&NOTHING, |topic| &topic.overrides), topic_key)
        }
        RESOURCE_BROKER => {
            let node = parse_node(image, resource_name)?;
            (image.dynamic_configs.get(&node).unwrap_or(&NOTHING), broker_key)
        }
        RESOURCE_BROKER_LOGGER => {
            return Err(refused(
                ErrorCode::InvalidRequest,
                "This broker's log levels cannot be changed while it runs.",
            ));
        }
        RESOURCE_CLIENT_METRICS => {
            (named::current(image, resource_type, resource_name).unwrap_or(&NOTHING), keys::client_metrics_key)
        }
        RESOURCE_GROUP => (named::current(image, resource_type, resource_name).unwrap_or(&NOTHING), keys::group_key),
        other => return Err(refused(ErrorCode::InvalidRequest, format!("Unknown resource type {other}"))),
    };
    let operations = operations(current);
    let mut next = current.clone();
    for (name, operation) in &operations {
        let value = apply(find(name), name, next.get(*name), *operation)?;
        match value {
            Some(value) => drop(next.insert(name.to_string(), value)),
            None => drop(next.remove(*name)),
        }
    }
    match resource_type {
        RESOURCE_TOPIC => {
            let resolved = TopicConfig::resolve(&next, &image.layers(None));
            resolved.map_err(|message| refused(ErrorCode::InvalidConfig, message))?;
            // Kafka looks for the topic when the configuration has been found good.
            if image.topic(resource_name).is_none() {
                let message = format!("The topic '{resource_name}' does not exist.");
                return Err(refused(ErrorCode::UnknownTopicOrPartition, message));
            }
        }
        RESOURCE_BROKER => check_broker_change(image, resource_name, &operations, &next)?,
        _ => named::check(image, resource_type, resource_name, &next)?,
    }
    let record = |(name, _): &(&str, Operation<'_>)| Record::Config {
        resource_type,
        resource_name: resource_name.to_string(),
        name: name.to_string(),
        value: next.get(*name).cloned(),
    };
    let changed = operations.iter().filter(|(name, _)| next.get(*name) != current.get(*name));
    Ok(changed.map(record).collect())
}

fn apply(
    key: Option<&'static Key>,
    name: &str,
    current: Option<&String>,
    operation: Operation<'_>,
) -> Result<Option<String>, Refused> {
    let list_only = |what: &str| match key {
        Some(key) if key.kind == Kind::List => Ok(key),
        _ => {
            let message = format!("Can't {what} to key {name} because its type is not LIST.");
            Err(refused(ErrorCode::InvalidConfig, message))
        }
    };
    // A list that was never set starts from its default.
    let parts = |key: &Key| -> Vec<String> {
        let list = current.map(String::as_str).or(key.default).unwrap_or_default();
        keys::list(list).map(str::to_string).collect()
    };
    Ok(match operation {
        Operation::Set(value) => Some(value.to_string()),
        Operation::Delete => None,
        Operation::Append(values) => {
            let mut parts = parts(list_only("APPEND")?);
            let mut there: BTreeSet<String> = parts.iter().cloned().collect();
            for value in keys::list(values) {
                if there.insert(value.to_string()) {
                    parts.push(value.to_string());
                }
            }
            Some(parts.join(","))
        }
        Operation::Subtract(values) => {
            let mut parts = parts(list_only("SUBTRACT")?);
            let gone: BTreeSet<&str> = keys::list(values).collect();
            parts.retain(|part| !gone.contains(part.as_str()));
            Some(parts.join(","))
        }
    })
}

fn parse_node(image: &ClusterImage, name: &str) -> Result<Option<NodeId>, Refused> {
    if name.is_empty() {
        return Ok(None);
    }
    let id: i32 = name
        .parse()
        .map_err(|_| refused(ErrorCode::InvalidRequest, format!("Node id must be an integer, but it is: {name}")))?;
    if !image.brokers.contains_key(&NodeId(id)) {
        return Err(refused(ErrorCode::InvalidRequest, format!("Unexpected broker id {id}: there is no such broker.")));
    }
    Ok(Some(NodeId(id)))
}

fn check_broker_change(
    image: &ClusterImage,
    resource_name: &str,
    operations: &[(&str, Operation<'_>)],
    next: &BTreeMap<String, String>,
) -> Result<(), Refused> {
    let invalid = |message: String| refused(ErrorCode::InvalidRequest, message);
    // Deleting what cannot be set is no error.
    let fixed = |name: &&&str| next.contains_key(**name) && broker_key(name).is_some_and(|key| !key.dynamic);
    let names: Vec<&str> = operations.iter().map(|(name, _)| name).filter(fixed).copied().collect();
    if !names.is_empty() {
        return Err(invalid(format!("Cannot update these configs dynamically: [{}]", names.join(", "))));
    }
    if image.has_elr() && operations.iter().any(|(name, _)| *name == MIN_INSYNC_REPLICAS) {
        let refusal = |message| Err(refused(ErrorCode::InvalidConfig, message));
        if !resource_name.is_empty() {
            return refusal("Broker-level min.insync.replicas cannot be altered while ELR is enabled.");
        }
        if !next.contains_key(MIN_INSYNC_REPLICAS) {
            return refusal("Cluster-level min.insync.replicas cannot be removed while ELR is enabled.");
        }
    }
    // A name that is not known is kept as it is: it may be of a plugin.
    for (key, value) in next.iter().filter_map(|(name, value)| Some((broker_key(name)?, value))) {
        key.check(value).map_err(invalid)?;
    }
    let layers = image.layers(None);
    let layers = match resource_name {
        "" => Layers { dynamic_default: Some(next), ..layers },
        _ => Layers { dynamic: Some(next), ..layers },
    };
    BrokerConfig::resolve(&layers).map(drop).map_err(invalid)
}

/// DescribeConfigs. `node` is the broker that is asked: each describes itself (and, as they share one process, its
/// neighbours).
pub fn describe(image: &ClusterImage, request: &DescribeConfigsRequest) -> DescribeConfigsResponse {
    let mut described = 0;
    let results = request.resources.iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let configs = match described {
            0..DESCRIBED_SETTINGS_MAX => describe_resource(image, resource, request),
            _ => Err(refused(ErrorCode::InvalidRequest, "The request asks for more settings than one reply may tell.")),
        };
        match configs {
            Ok(configs) => {
                described += configs.len();
                result.with_configs(configs)
            }
            Err(error) => {
                let message = error.message.map(StrBytes::from);
                result.with_error_code(error.code.code()).with_error_message(message)
            }
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn describe_resource(
    image: &ClusterImage,
    resource: &DescribeConfigsResource,
    request: &DescribeConfigsRequest,
) -> Result<Vec<DescribeConfigsResourceResult>, Refused> {
    let asked = Asked::by(resource);
    let wanted = |key: &&'static Key| asked.names(key.name);
    let name = resource.resource_name.as_str();
    match resource.resource_type {
        RESOURCE_TOPIC => {
            check_name(name)?;
            let topic = image.topic(name).ok_or_else(|| refused(ErrorCode::UnknownTopicOrPartition, ""))?;
            let node = topic.partitions.first().map(|partition| partition.leader);
            let layers = image.layers(node);
            let describe = |key| {
                let value = layers.topic_value(key, &topic.overrides);
                entry(key, value, layers.topic_synonyms(key, &topic.overrides), false, request)
            };
            Ok(TopicConfig::described_keys().filter(wanted).map(describe).collect())
        }
        RESOURCE_BROKER => {
            let node = parse_node(image, name)?;
            let layers = image.layers(node);
            // What was set under a name that is not known, the strongest value of each.
            let mut unknown = BTreeMap::new();
            for (layer, source) in
                [(layers.dynamic_default, Source::DynamicDefaultBroker), (layers.dynamic, Source::DynamicBroker)]
            {
                let names = layer.into_iter().flat_map(BTreeMap::keys).filter(|name| broker_key(name).is_none());
                unknown.extend(names.filter(|name| asked.names(name)).map(|name| (name.as_str(), source)));
            }
            let unknown = unknown.into_iter().map(|(name, source)| unknown_entry(name, source, request));
            let known = keys::broker_keys().filter(wanted);
            match node {
                None => {
                    // All brokers: only what was set for all of them.
                    let is_set = |key: &&'static Key| layers.dynamic_default.is_some_and(|d| d.contains_key(key.name));
                    let describe = |key| {
                        let mut found = layers.broker_values(key);
                        found.truncate(1);
                        entry(key, found[0].value.clone(), found, !key.dynamic, request)
                    };
                    Ok(known.filter(is_set).map(describe).chain(unknown).collect())
                }
                Some(node) => {
                    let described = known.filter(|key| !key.is_internal());
                    Ok(described.map(|key| broker_entry(image, node, key, request)).chain(unknown).collect())
                }
            }
        }
        RESOURCE_BROKER_LOGGER if name.is_empty() => {
            Err(refused(ErrorCode::InvalidRequest, "Broker id must not be empty"))
        }
        RESOURCE_BROKER_LOGGER => parse_node(image, name).map(|_| Vec::new()),
        RESOURCE_CLIENT_METRICS | RESOURCE_GROUP => named::describe(image, resource, request),
        other => {
            let message = format!("Unsupported resource type: {other}");
            Err(refused(ErrorCode::InvalidRequest, message))
        }
    }
}

/// The keys that a resource is asked for; `None`: all.
struct Asked<'a>(Option<BTreeSet<&'a str>>);

impl<'a> Asked<'a> {
    fn by(resource: &'a DescribeConfigsResource) -> Asked<'a> {
        let names = resource.configuration_keys.as_ref().filter(|names| !names.is_empty());
        Asked(names.map(|names| names.iter().map(StrBytes::as_str).collect()))
    }

    fn names(&self, key: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.contains(key))
    }
}

/// A broker's key. Shards of one process share its settings, except for what tells them apart.
fn broker_entry(
    image: &ClusterImage,
    node: NodeId,
    key: &'static Key,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResourceResult {
    let layers = image.layers(Some(node));
    let mut value = layers.broker_value(key);
    let mut found = layers.broker_synonyms(key);
    let broker = image.brokers.get(&node);
    let own = match (key.name, broker) {
        ("node.id" | "broker.id", _) => Some(node.to_string()),
        ("advertised.listeners", Some(broker)) => Some(format!("PLAINTEXT://{}:{}", broker.host, broker.port)),
        ("listeners", Some(broker)) => Some(format!("PLAINTEXT://{}:{}", image.config.listen_host, broker.port)),
        ("broker.rack", Some(broker)) => broker.rack.as_deref().map(str::to_string),
        ("log.dir" | "log.dirs", _) => Some(image.config.data_dir.display().to_string()),
        _ => None,
    };
    if let Some(own) = own {
        value = Some(own.into());
        found.retain(|f| f.source == Source::Default);
        found.insert(0, Found { key, value: value.clone(), source: Source::StaticBroker });
    }
    entry(key, value, found, !key.dynamic, request)
}

/// A name that nothing is known of might be a secret's: its value is not shown.
fn unknown_entry(name: &str, source: Source, request: &DescribeConfigsRequest) -> DescribeConfigsResourceResult {
    let synonym = DescribeConfigsSynonym::default().with_name(StrBytes::from(name.to_string())).with_value(None);
    let synonyms = request.include_synonyms.then(|| synonym.with_source(source as i8));
    DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from(name.to_string()))
        .with_value(None)
        .with_read_only(true)
        .with_config_source(source as i8)
        .with_is_sensitive(true)
        .with_synonyms(synonyms.into_iter().collect())
        .with_documentation(None)
}

/// One key with its value, and where else it is set.
fn entry(
    key: &'static Key,
    value: Option<Cow<'_, str>>,
    synonyms: Vec<Found<'_>>,
    read_only: bool,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResourceResult {
    let secret = key.is_sensitive();
    let text = |value: &str| (!secret).then(|| StrBytes::from(value.to_string()));
    // What counts is shown as it was understood, and so is a topic's own value; of a broker's, what was written.
    let understood = |value: &Option<Cow<'_, str>>| value.as_ref().and_then(|value| text(&key.shown(value)));
    let source = synonyms.first().map_or(Source::Default, |found| found.source);
    let synonyms = synonyms.iter().filter(|f| request.include_synonyms && f.value.is_some()).map(|f| {
        DescribeConfigsSynonym::default()
            .with_name(StrBytes::from_static_str(f.key.name))
            .with_value(match f.source {
                Source::Topic => understood(&f.value),
                _ => f.value.as_deref().and_then(text),
            })
            .with_source(f.source as i8)
    });
    let documentation = match key.doc {
        "" => "Known from Apache Kafka's configuration; without effect in this broker.",
        doc => doc,
    };
    DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(key.name))
        .with_value(understood(&value))
        .with_read_only(read_only)
        .with_config_source(source as i8)
        .with_is_sensitive(key.is_sensitive())
        .with_synonyms(synonyms.collect())
        .with_config_type(key.kind as i8)
        .with_documentation(request.include_documentation.then(|| StrBytes::from_static_str(documentation)))
}

#[cfg(test)]
mod tests;
