//! DescribeConfigs: settings of topics and of this broker, with where they come from.

use std::collections::BTreeMap;

use crate::partition::{Kind, SETTINGS, Setting};
use crate::protocol::ErrorCode;
use crate::protocol::generated::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult,
    DescribeConfigsSynonym,
};
use crate::server::dispatch::Call;
use crate::server::services::{Services, SettingSource};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

/// A topic's setting in force.
pub(super) struct InForce {
    pub(super) setting: &'static Setting,
    pub(super) value: String,
    pub(super) source: SettingSource,
    /// The broker's setting that it falls back to, where somebody set that.
    broker: Option<(String, SettingSource)>,
}

/// All settings of a topic with these own ones.
pub(super) fn topic_settings(services: &Services, own: &BTreeMap<String, String>) -> Vec<InForce> {
    let broker = |setting: &Setting| {
        services.settings.broker.iter().find(|b| b.name == setting.broker_synonym && b.source != SettingSource::Default)
    };
    SETTINGS
        .iter()
        .map(|setting| {
            let above = broker(setting).and_then(|b| Some((b.value.clone()?, b.source)));
            let (value, source) = match (own.get(setting.name), &above) {
                (Some(value), _) => (value.clone(), SettingSource::Topic),
                (None, Some((value, source))) => (value.clone(), *source),
                (None, None) => (setting.default.to_string(), SettingSource::Default),
            };
            InForce { setting, value, source, broker: above }
        })
        .collect()
}

pub(in crate::server) async fn handle(call: Call<DescribeConfigsRequest>) -> DescribeConfigsResponse {
    let results = call.request.resources.iter().map(|resource| {
        let described = describe(&call, resource);
        let (error, error_message, configs) = match described {
            Ok(configs) => (ErrorCode::None, None, configs),
            Err((error, message)) => (error, Some(message), Vec::new()),
        };
        DescribeConfigsResult {
            error_code: error.code(),
            error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            configs,
        }
    });
    DescribeConfigsResponse { results: results.collect(), ..Default::default() }
}

fn describe(
    call: &Call<DescribeConfigsRequest>,
    resource: &DescribeConfigsResource,
) -> Result<Vec<DescribeConfigsResourceResult>, (ErrorCode, String)> {
    let services = &call.caller.services;
    let keys = resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty());
    let wanted = |name: &str| keys.is_none_or(|keys| keys.iter().any(|key| key == name));
    let name = &resource.resource_name;
    match resource.resource_type {
        TOPIC => {
            let image = services.cluster.image();
            let topic =
                image.topic(name).ok_or((ErrorCode::UnknownTopicOrPartition, "This server does not host this topic-partition.".into()))?;
            let settings = topic_settings(services, &topic.configs);
            Ok(settings.iter().filter(|s| wanted(s.setting.name)).map(|s| topic_result(call, s)).collect())
        }
        BROKER | BROKER_LOGGER if !name.is_empty() && name.parse() != Ok(services.node_id) => {
            Err((ErrorCode::InvalidRequest, format!("Unexpected broker id, expected {}, but received {name}", services.node_id)))
        }
        // The defaults of the whole cluster are dynamic settings, of which there are none yet.
        BROKER if name.is_empty() => Ok(Vec::new()),
        BROKER => Ok(services.settings.broker.iter().filter(|s| wanted(s.name)).map(|s| broker_result(call, s)).collect()),
        BROKER_LOGGER | CLIENT_METRICS | GROUP => Ok(Vec::new()),
        other => Err((ErrorCode::InvalidRequest, format!("Unsupported resource type: {other}"))),
    }
}

fn topic_result(call: &Call<DescribeConfigsRequest>, s: &InForce) -> DescribeConfigsResourceResult {
    let synonym = |name: &str, value: &str, source: SettingSource| DescribeConfigsSynonym {
        name: name.into(),
        value: Some(value.into()),
        source: source as i8,
    };
    let mut synonyms = Vec::new();
    if call.request.include_synonyms {
        if s.source == SettingSource::Topic {
            synonyms.push(synonym(s.setting.name, &s.value, SettingSource::Topic));
        }
        if let Some((value, source)) = &s.broker {
            synonyms.push(synonym(s.setting.broker_synonym, value, *source));
        }
        let name = if s.setting.broker_synonym.is_empty() { s.setting.name } else { s.setting.broker_synonym };
        synonyms.push(synonym(name, s.setting.default, SettingSource::Default));
    }
    DescribeConfigsResourceResult {
        name: s.setting.name.into(),
        value: Some(s.value.clone()),
        config_source: s.source as i8,
        synonyms,
        config_type: type_code(s.setting.kind),
        documentation: call.request.include_documentation.then(|| s.setting.doc.to_string()),
        ..Default::default()
    }
}

fn broker_result(call: &Call<DescribeConfigsRequest>, s: &crate::server::services::BrokerSetting) -> DescribeConfigsResourceResult {
    let synonyms = vec![DescribeConfigsSynonym { name: s.name.into(), value: s.value.clone(), source: s.source as i8 }];
    DescribeConfigsResourceResult {
        name: s.name.into(),
        value: s.value.clone(),
        read_only: true,
        config_source: s.source as i8,
        synonyms: if call.request.include_synonyms { synonyms } else { Vec::new() },
        config_type: type_code(s.kind),
        documentation: call.request.include_documentation.then(|| s.doc.to_string()),
        ..Default::default()
    }
}

fn type_code(kind: Kind) -> i8 {
    match kind {
        Kind::Boolean => 1,
        Kind::String => 2,
        Kind::Int => 3,
        Kind::Long => 5,
        Kind::Double => 6,
        Kind::List => 7,
    }
}
