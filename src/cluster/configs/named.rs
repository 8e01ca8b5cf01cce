//! Configuration of what is nothing but a name here: groups, and client metrics subscriptions (KIP-714). It is kept and
//! described as Kafka does, for the tools and clients that set it; nothing in this broker acts on it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use kafka_protocol::messages::DescribeConfigsRequest;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;

use super::{Asked, entry};
use crate::cluster::image::ClusterImage;
use crate::cluster::record::{RESOURCE_CLIENT_METRICS, RESOURCE_GROUP};
use crate::cluster::{Refused, refused};
use crate::config::Source;
use crate::config::keys::{self, Key};
use crate::config::layers::Found;
use crate::wire::error_code::ErrorCode;

/// What a subscription may match clients by.
const MATCHED_BY: [&str; 6] = [
    "client_instance_id",
    "client_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

/// Largest and smallest interval of a subscription.
const INTERVAL_MS: std::ops::RangeInclusive<i64> = 100..=3_600_000;

/// What is set for one of them.
pub(super) fn current<'a>(
    image: &'a ClusterImage,
    resource_type: i8,
    name: &str,
) -> Option<&'a BTreeMap<String, String>> {
    image.named_configs.get(&(resource_type, name.to_string()))
}

/// Checks everything that would be set for one of them.
pub(super) fn check(
    image: &ClusterImage,
    resource_type: i8,
    name: &str,
    next: &BTreeMap<String, String>,
) -> Result<(), Refused> {
    let invalid = |message: String| refused(ErrorCode::InvalidConfig, message);
    if name.is_empty() {
        let message = match resource_type {
            RESOURCE_GROUP => "Default group resources are not allowed.",
            _ => "Subscription name can't be empty",
        };
        return Err(refused(ErrorCode::InvalidRequest, message));
    }
    for (key_name, value) in next {
        let key = key(resource_type, key_name).ok_or_else(|| match resource_type {
            RESOURCE_GROUP => invalid(format!("Unknown group config name: {key_name}")),
            _ => {
                let message = format!("Unknown client metrics configuration: {key_name}");
                refused(ErrorCode::InvalidRequest, message)
            }
        })?;
        key.check(value).map_err(invalid)?;
        match resource_type {
            RESOURCE_GROUP => check_group_key(image, key, value).map_err(invalid)?,
            _ => check_subscription_key(key, value)?,
        }
    }
    Ok(())
}

/// Brokers bound what a group may ask for.
fn check_group_key(image: &ClusterImage, key: &Key, value: &str) -> Result<(), String> {
    if key.name == "share.auto.offset.reset" {
        return check_offset_reset(value);
    }
    let Ok(number) = value.trim().parse::<i64>() else { return Ok(()) };
    let (kind, rest) = key.name.split_once('.').unwrap_or_default();
    let rest = rest.strip_prefix("num.").unwrap_or(rest);
    let bound = |which: &str| {
        let bound_key = keys::broker_key(&format!("group.{kind}.{which}.{rest}"))?;
        let value = image.layers(None).broker_value(bound_key)?;
        Some((bound_key.name, value.trim().parse::<i64>().ok()?))
    };
    if let Some((bound_name, _)) = bound("min").filter(|(_, min)| number < *min) {
        return Err(format!("{} must be greater than or equal to {bound_name}", key.name));
    }
    if let Some((bound_name, _)) = bound("max").filter(|(_, max)| number > *max) {
        return Err(format!("{} must be less than or equal to {bound_name}", key.name));
    }
    Ok(())
}

fn check_offset_reset(value: &str) -> Result<(), String> {
    // by_duration:PT1H; the duration itself is not looked at.
    let known = matches!(value, "earliest" | "latest") || value.starts_with("by_duration:P");
    let message = || {
        let name = "share.auto.offset.reset";
        format!(
            "Invalid value {value} for configuration {name}: Invalid value `{value}` for configuration {name}. The value must \
             be either 'earliest', 'latest' or of the format 'by_duration:<PnDTnHnMn.nS.>'."
        )
    };
    known.then_some(()).ok_or_else(message)
}

fn check_subscription_key(key: &Key, value: &str) -> Result<(), Refused> {
    match key.name {
        "interval.ms" if !value.trim().parse().is_ok_and(|ms| INTERVAL_MS.contains(&ms)) => {
            let message =
                format!("Invalid value {value} for interval.ms, interval must be between 100 and 3600000 (1 hour)");
            Err(refused(ErrorCode::InvalidRequest, message))
        }
        "match" => {
            // Of a pattern's regular expression only that there is one.
            let fits = |pattern: &str| {
                pattern.split_once('=').is_some_and(|(by, regex)| MATCHED_BY.contains(&by.trim()) && !regex.is_empty())
            };
            match keys::list(value).find(|pattern| !fits(pattern)) {
                Some(pattern) => {
                    Err(refused(ErrorCode::InvalidConfig, format!("Illegal client matching pattern: {pattern}")))
                }
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Describes one of them. A group has settings whether or not it exists; so has a subscription.
pub(super) fn describe(
    image: &ClusterImage,
    resource: &DescribeConfigsResource,
    request: &DescribeConfigsRequest,
) -> Result<Vec<DescribeConfigsResourceResult>, Refused> {
    let name = resource.resource_name.as_str();
    if name.is_empty() {
        let message = match resource.resource_type {
            RESOURCE_GROUP => "Group name must not be empty",
            _ => "Client metrics subscription name must not be empty",
        };
        return Err(refused(ErrorCode::InvalidRequest, message));
    }
    let set = current(image, resource.resource_type, name);
    let keys: Box<dyn Iterator<Item = &'static Key>> = match resource.resource_type {
        RESOURCE_GROUP => Box::new(keys::group_keys()),
        _ => Box::new(keys::client_metrics_keys()),
    };
    let asked = Asked::by(resource);
    let keys = keys.filter(|key| asked.names(key.name));
    Ok(keys.map(|key| describe_key(image, resource.resource_type, key, set, request)).collect())
}

/// A key of a group, whose defaults are the brokers', or of a subscription, whose defaults are nobody's.
fn describe_key(
    image: &ClusterImage,
    resource_type: i8,
    key: &'static Key,
    set: Option<&BTreeMap<String, String>>,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResourceResult {
    let group = resource_type == RESOURCE_GROUP;
    let source = if group { Source::Group } else { Source::ClientMetrics };
    let own = set.and_then(|set| set.get(key.name));
    let own = own.map(|value| Found { key, value: Some(value.as_str().into()), source });
    let defaults = match key.synonyms.first() {
        Some((broker_key, _)) => image.layers(None).broker_synonyms(broker_key),
        None if group => vec![Found { key, value: key.default.map(Cow::Borrowed), source: Source::Default }],
        None => Vec::new(),
    };
    let found: Vec<_> = own.into_iter().chain(defaults).collect();
    let value = found.first().map_or(key.default.map(Cow::Borrowed), |found| found.value.clone());
    entry(key, value, found, false, request)
}

/// The key of that name.
fn key(resource_type: i8, name: &str) -> Option<&'static Key> {
    match resource_type {
        RESOURCE_GROUP => keys::group_key(name),
        RESOURCE_CLIENT_METRICS => keys::client_metrics_key(name),
        _ => None,
    }
}
