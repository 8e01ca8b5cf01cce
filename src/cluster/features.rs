//! The cluster's features and their levels (KIP-584): which there are, and the control thread's answer to UpdateFeatures,
//! with Kafka's checks and words.
//!
//! All updates of a request are made, or none.

use std::collections::BTreeMap;

use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::update_features_response::UpdatableFeatureResult;
use kafka_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use kafka_protocol::protocol::StrBytes;

use super::image::{ClusterImage, ELR_FEATURE};
use super::record::Record;
use crate::wire::error_code::ErrorCode;

const METADATA_VERSION: &str = "metadata.version";
/// Name, lowest and highest level; a new cluster is at the highest. `metadata.version`, Kafka 3.3's to Kafka 4.1's, comes
/// first, as a metadata log begins with it.
pub const FEATURES: &[(&str, i16, i16)] = &[(METADATA_VERSION, 7, 27), ("group.version", 0, 1), (ELR_FEATURE, 0, 1)];

const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;
const UNSAFE_DOWNGRADE: i8 = 3;

/// Lowest and highest level of each feature. A data directory that Kafka wrote may hold more of them, and higher ones.
pub fn supported(image: &ClusterImage) -> BTreeMap<&str, (i16, i16)> {
    let mut ranges: BTreeMap<&str, _> = FEATURES.iter().map(|(name, min, max)| (*name, (*min, *max))).collect();
    for (name, level) in &image.features {
        let (_, max) = ranges.entry(name).or_insert((0, *level));
        *max = (*max).max(*level);
    }
    ranges
}

/// Answers UpdateFeatures.
pub fn update(
    image: &ClusterImage,
    request: &UpdateFeaturesRequest,
    version: i16,
) -> (Vec<Record>, UpdateFeaturesResponse) {
    let mut records = Vec::new();
    for asked in &request.feature_updates {
        if let Err(reason) = check(image, asked, version) {
            let text = format!("The update failed for all features since the following feature had an error: {reason}");
            let response = UpdateFeaturesResponse::default()
                .with_error_code(ErrorCode::InvalidUpdateVersion.code())
                .with_error_message(Some(StrBytes::from_string(text)));
            return (Vec::new(), response);
        }
        let level = asked.max_version_level;
        if level_of(image, &asked.feature) != level {
            records.push(Record::FeatureLevel { name: asked.feature.to_string(), level });
        }
    }
    let done = |asked: &FeatureUpdateKey| {
        let result = UpdatableFeatureResult::default().with_feature(asked.feature.clone());
        result.with_error_message(Some(StrBytes::from_static_str("NONE")))
    };
    let mut response = UpdateFeaturesResponse::default().with_error_message(None);
    if version < 2 {
        response.results = request.feature_updates.iter().map(done).collect();
    }
    if request.validate_only {
        records.clear();
    }
    (records, response)
}

fn level_of(image: &ClusterImage, name: &str) -> i16 {
    image.features.get(name).copied().unwrap_or(0)
}

fn check(image: &ClusterImage, asked: &FeatureUpdateKey, version: i16) -> Result<(), String> {
    let (name, level) = (asked.feature.as_str(), asked.max_version_level);
    let refused = |reason: String| Err(format!("Invalid update version {level} for feature {name}. {reason}"));
    let kind = match (version, asked.allow_downgrade) {
        (0, true) => SAFE_DOWNGRADE,
        (0, false) => UPGRADE,
        _ => asked.upgrade_type,
    };
    if !(UPGRADE..=UNSAFE_DOWNGRADE).contains(&kind) {
        return refused("The controller does not support the given upgrade type.".to_string());
    }
    if level < 0 {
        return refused("A feature version cannot be less than 0.".to_string());
    }
    let controller = image.config.node_id;
    match supported(image).get(name) {
        None => return refused(format!("Local controller {controller} does not support this feature.")),
        Some((min, max)) if !(*min..=*max).contains(&level) => {
            return refused(format!("Local controller {controller} only supports versions {min}-{max}"));
        }
        Some(_) => {}
    }
    let current = level_of(image, name);
    if level < current && kind == UPGRADE {
        let how = "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe \
                   downgrade.";
        return refused(how.to_string());
    }
    if level > current && kind != UPGRADE {
        return refused("Can't downgrade to a newer version.".to_string());
    }
    if name == METADATA_VERSION && level < current {
        let reason = match kind {
            UNSAFE_DOWNGRADE => "Unsafe metadata downgrade is not supported in this version.",
            _ => "Refusing to perform the requested downgrade because it might delete metadata information.",
        };
        return Err(format!("Unsupported metadata.version downgrade from {current} to {level}. {reason}"));
    }
    Ok(())
}
